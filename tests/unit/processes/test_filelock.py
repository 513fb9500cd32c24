"""File locks: waiting with and without a limit, shared holders, and holders that die."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.contract.errors import StandaloneError
from worker.processes import filelock, service
from worker.processes.filelock import locked

# Holds the lock of a file until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from worker.processes.filelock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def acquired(path: Path, **options: object) -> float:
    """Acquire and release the lock; the time of acquisition."""
    with locked(path, **options):
        return time.monotonic()


def release(process: subprocess.Popen[str]) -> None:
    process.stdin.close()


@pytest.mark.parametrize("limit", [None, 20.0])
def test_a_held_lock_is_waited_for_and_logged_once(path, limit, caplog):
    with holder(path) as other, ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO):
        waiting = pool.submit(acquired, path, limit_seconds=limit)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        released = time.monotonic()
        release(other)

        assert waiting.result(timeout=10) >= released

    [record] = [record for record in caplog.records if record.name == filelock.__name__]
    assert str(path) in str(vars(record))


def test_a_lock_held_beyond_the_limit_is_named(path):
    with holder(path):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"lock is still locked after 0\.2 s"):
            acquired(path, limit_seconds=0.2)

    assert 0.2 <= time.monotonic() - began < 10


def test_a_free_lock_is_acquired_without_a_log_line(path, caplog):
    with caplog.at_level(logging.INFO):
        acquired(path, limit_seconds=0.0)

    assert not caplog.records
    assert path.exists()


@pytest.mark.parametrize("end", [release, lambda process: process.send_signal(signal.SIGKILL)])
def test_the_lock_is_free_when_its_holder_has_ended(path, end: Callable[[subprocess.Popen[str]], None]):
    with holder(path) as other:
        end(other)
        other.wait(10)

        acquired(path, limit_seconds=0.0)


def test_shared_holders_exclude_only_an_exclusive_one(path):
    both = threading.Barrier(2)

    def share() -> None:
        with locked(path, shared=True, limit_seconds=10.0):
            both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(share), pool.submit(share)]:
            done.result()

    with locked(path, shared=True), pytest.raises(TimeoutError):
        acquired(path, limit_seconds=0.0)


def test_a_child_that_inherits_the_descriptor_keeps_the_lock(path):
    with locked(path) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    try:
        with pytest.raises(TimeoutError):
            acquired(path, limit_seconds=0.1)
    finally:
        child.kill()
        child.wait()

    acquired(path, limit_seconds=0.0)


def test_a_server_lock_names_the_server(path, monkeypatch):
    monkeypatch.setattr(service, "_LOCK_SECONDS", 0.1)
    with (
        locked(path),
        pytest.raises(StandaloneError, match=r"redis: another server runs on the same data \(.*lock is locked\)"),
        service.server_lock(path, "redis"),
    ):
        pytest.fail("the lock was not held")


def test_a_time_out_inside_a_server_lock_is_passed_on(path):
    with pytest.raises(TimeoutError, match="of the body"), service.server_lock(path, "redis") as descriptor:
        assert descriptor is not None
        raise TimeoutError("of the body")


def test_a_server_without_a_lock_file_locks_nothing():
    with service.server_lock(None, "redis") as descriptor:
        assert descriptor is None
