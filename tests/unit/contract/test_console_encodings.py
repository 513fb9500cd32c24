"""Output to a terminal or pipe that is not UTF-8, and users without a home folder: no traceback, nothing lost."""

from __future__ import annotations

import io
import json
import os
import pwd
import sys

import click
import pytest

from producer import tables
from worker.contract import console, settings
from worker.contract.errors import SettingsError, SourceError
from worker.contract.job import JobView
from worker.contract.messages import JobOptions, Outcome

VIEW = JobView(
    job="job", status="finished", options=JobOptions(source="s3://b/in/", dest="s3://b/out/"), created_at=0.0
)
NAME = "ü\udcff日.jpg"  # also a byte that is not UTF-8, as Python reads it from a file name


def printed(monkeypatch, encoding: str, action) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command that performs `action`."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    command = click.Command("odd", callback=action)
    monkeypatch.setattr(sys, "argv", ["odd"])
    with pytest.raises(SystemExit) as end:
        console.run(command)
    for stream in streams:
        stream.flush()
    shown = [stream.buffer.getvalue().decode(encoding) for stream in streams]
    return end.value.code, *shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(monkeypatch, encoding):
    def fail():
        console.out.print(NAME)
        raise SourceError(f"{NAME} is odd")

    code, out, err = printed(monkeypatch, encoding, fail)

    assert (code, "\\udcff" in out, "error (source)" in err) == (1, True, True)
    assert ("ü" in out, "日" in out) == (encoding != "ascii", encoding == "utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json(monkeypatch, encoding):
    def show():
        console.print_json({"key": NAME})
        tables.write_jsonl([Outcome(index=0, key=NAME, kind="ok")], VIEW, sys.stdout)

    _, out, _ = printed(monkeypatch, encoding, show)

    assert [json.loads(line)["key"] for line in out.splitlines()] == [NAME, NAME]


@pytest.fixture
def homeless(monkeypatch):
    """A user id without an entry in passwd, and no HOME: a container that runs as an arbitrary user."""

    def unknown(_):
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 12345)


def test_a_user_without_a_home_is_told_what_to_set(homeless):
    with pytest.raises(SettingsError, match=r"user 12345 has no home folder .* set MASKMILL_MODEL__CACHE_DIR"):
        settings.load()


def test_a_user_without_a_home_may_name_the_cache(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path))

    assert settings.load().model.cache_dir == tmp_path
