"""Commands find the services of this machine while their process lives, and only if nothing else is configured."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from worker.contract import local_services, settings
from worker.contract.local_services import RunningServices

HERE = {
    "redis": {"url": "redis://127.0.0.1:11111/0", "password": "secret"},
    "s3": {"endpoint_url": "http://127.0.0.1:11112", "access_key_id": "key", "secret_access_key": "hidden"},
}


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = local_services.folder()
    folder.mkdir(parents=True)
    return folder


def record(pid: int | None = None, started: int | None = None) -> RunningServices:
    pid = pid or os.getpid()
    started = local_services.process_start(pid) if started is None else started
    return RunningServices(pid=pid, started=started or 0, command="serve", workers=True, model={}, settings=HERE)


def test_the_folder_does_not_depend_on_the_current_one(monkeypatch, tmp_path, state):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert local_services.folder() == state
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert local_services.folder().is_absolute() and "relative" not in str(local_services.folder())
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert settings.load().model.cache_dir.is_absolute()


def test_settings_come_from_running_services(state):
    local_services.write_running(state, record())

    config = settings.load()

    assert config.redis.url == HERE["redis"]["url"] and config.s3.endpoint_url == HERE["s3"]["endpoint_url"]
    assert config.redis.password.get_secret_value() == "secret"
    shown = {row.variable: row for row in settings.explain(config)}
    assert shown["MASKMILL_REDIS__URL"].origin == "maskmill serve"
    assert "secret" not in "".join(row.value for row in shown.values())
    assert stat.S_IMODE((state / "running.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "variable",
    ["MASKMILL_REDIS__URL=redis://prod:6379/0", "MASKMILL_S3__ENDPOINT_URL=http://prod", "MASKMILL_REDIS__USERNAME=me"],
)
def test_services_that_the_user_names_take_precedence_whole(state, monkeypatch, variable):
    local_services.write_running(state, record())
    monkeypatch.setenv(*variable.split("="))

    config = settings.load()

    assert "11111" not in config.redis.url and "11112" not in str(config.s3.endpoint_url)
    assert config.s3.access_key_id is None, "never credentials of one service for another"


def test_other_settings_do_not_hide_the_services(state, monkeypatch):
    local_services.write_running(state, record())
    monkeypatch.setenv("MASKMILL_REDIS__TIMEOUT_SECONDS", "3")

    config = settings.load()

    assert config.redis.url == HERE["redis"]["url"] and config.redis.timeout_seconds == 3


def test_a_record_of_a_dead_process_does_not_count(state):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    local_services.write_running(state, record(child.pid))
    assert local_services.find_running(state)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert local_services.find_running(state) is None, "a zombie has ended"
    child.communicate()
    assert local_services.find_running(state) is None


def test_another_process_with_the_same_id_does_not_count(state):
    local_services.write_running(state, record(started=1))

    assert local_services.find_running(state) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_record_does_not_count(state, text):
    (state / "running.json").write_text(text)

    assert local_services.find_running(state) is None and settings.load().redis.url.endswith(":6379/0")
