"""Which services a command uses, and that those who share them end in the right order."""

from __future__ import annotations

import os
import threading

import pytest

from worker.contract import local_services
from worker.contract.errors import SettingsError, StandaloneError
from worker.contract.local_services import RunningServices
from worker.contract.settings import ModelSettings
from worker.processes.filelock import locked
from worker.standalone.stack import model_variables
from worker.umbrella import session
from worker.umbrella.session import READING, services

U2NETP = ModelSettings(source="u2netp")
HERE = {
    "redis": {"url": "redis://127.0.0.1:11111/0", "password": "secret"},
    "s3": {"endpoint_url": "http://127.0.0.1:11112", "access_key_id": "key", "secret_access_key": "hidden"},
}


class FakeStack:
    """Stands in for services and workers; notes when it was stopped."""

    stopped = 0

    def __init__(self, state, *, workers, model, command):
        self.state, self.command, self.workers, self.model = state, command, workers, model

    def start(self):
        record(command=self.command, workers=self.workers, model=model_variables(self.model) if self.model else {})

    def stop(self):
        FakeStack.stopped += 1
        local_services.remove_running(self.state)


def record(**changed) -> None:
    pid = os.getpid()
    fields = {"command": "serve", "workers": True, "model": model_variables(U2NETP)} | changed
    running = RunningServices(pid=pid, started=local_services.process_start(pid) or 0, settings=HERE, **fields)
    local_services.write_running(local_services.folder(), running)


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(session, "Stack", FakeStack)
    FakeStack.stopped = 0
    local_services.folder().mkdir(parents=True)
    return local_services.folder()


def used(model=U2NETP, *, named=False, said=None):
    return services("cut", model, named=named, say=(said if said is not None else []).append)


def test_services_are_started_and_stopped():
    with used() as found:
        assert found.stack is not None and found.model == model_variables(U2NETP)
        assert found.config.redis.url == HERE["redis"]["url"]
        assert local_services.find_running(local_services.folder()).command == "cut"

    assert FakeStack.stopped == 1


def test_they_are_stopped_after_an_error_and_an_interrupt():
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), used():
            raise error

    assert FakeStack.stopped == 2


def test_running_services_are_used_and_left_running():
    record()

    with used(ModelSettings(source="default")) as found:
        assert found.stack is None and found.model == model_variables(U2NETP), "the network of those workers"

    assert FakeStack.stopped == 0


def test_settings_of_the_user_for_other_services_do_not_mix_in(monkeypatch):
    monkeypatch.setenv("MASKMILL_REDIS__URL", "redis://prod:6379/0")
    monkeypatch.setenv("MASKMILL_REDIS__PREFIX", "prod:")
    monkeypatch.setenv("MASKMILL_S3__ALLOW", '["prod"]')

    with used() as found:
        assert found.config.redis.url == HERE["redis"]["url"] and found.config.redis.prefix == "maskmill:"
        assert found.config.s3.allow == ()


def test_a_network_that_was_asked_for_is_not_replaced_by_another():
    record()

    with pytest.raises(SettingsError, match=r"runs on this machine with u2netp, not builtin:starter: .*--network"):
        used(ModelSettings(source="builtin:starter"), named=True).__enter__()
    with used(U2NETP, named=True) as found:
        assert found.stack is None


def test_services_without_workers_are_refused_by_who_needs_workers():
    record(workers=False)

    with pytest.raises(StandaloneError, match="without workers"):
        used().__enter__()
    with used(None) as found:
        assert found.stack is None


def test_services_that_only_read_are_waited_for(state):
    record(command=READING, workers=False)
    timer = threading.Timer(0.3, lambda: local_services.remove_running(state))
    timer.start()

    with used() as found:
        assert found.stack is not None
    timer.join()


def test_who_started_the_services_waits_for_the_others(state):
    said: list[str] = []
    other = locked(state / "users.lock", shared=True)
    other.__enter__()
    timer = threading.Timer(0.5, lambda: other.__exit__(None, None, None))

    with used(said=said):
        timer.start()
    timer.join()

    assert FakeStack.stopped == 1 and len(said) == 1 and "waiting for its end" in said[0]


def test_services_that_end_are_noticed(state):
    record()
    with used() as found:
        found.check()
        local_services.remove_running(state)

        with pytest.raises(StandaloneError, match="`maskmill serve`, whose services were used, has ended"):
            found.check()
