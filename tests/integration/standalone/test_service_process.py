"""Service processes: start, stop, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from worker.contract.errors import StandaloneError
from worker.processes.service import ServiceProcess

SLEEP = ["/bin/sleep", "600"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ServiceProcess]:
    def make(command: list[str], **options: object) -> ServiceProcess:
        return ServiceProcess("a server", command, **({"log": tmp_path / "log"} | options))

    return make


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)


def test_a_child_runs_in_its_own_session_and_ends_by_sigterm(make):
    with make(SLEEP) as process:
        pid = process.pid
        assert process.running
        assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)

    assert not process.running
    assert process.returncode == -signal.SIGTERM
    assert process.pid is None
    assert not psutil.pid_exists(pid)


def test_it_reads_its_standard_input_to_the_end_and_writes_a_private_log(make, tmp_path):
    process = make(["/bin/cat"])
    process.start(b"x" * 300_000)

    assert process.wait(10)
    process.stop()
    assert (tmp_path / "log").stat().st_size == 300_000
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_the_log_of_the_previous_run_is_kept(make, tmp_path):
    for text in ("first", "second"):
        process = make(["/bin/echo", text])
        process.start()
        assert process.wait(10)
        process.stop()

    assert (tmp_path / "log").read_text() == "second\n"
    assert (tmp_path / "log.1").read_text() == "first\n"


def test_it_waits_until_the_child_is_ready(make, tmp_path):
    flag = tmp_path / "flag"
    with make(shell(f"sleep 0.2; echo > {flag}; sleep 600")) as process:
        process.wait_until(lambda: None if flag.exists() else "no flag", limit_seconds=10)
        assert flag.exists()


def test_the_error_for_a_child_that_exits_while_starting_quotes_its_log_without_secrets(make):
    process = make(shell("echo the password is hunter2; exit 3"), secrets=["hunter2", ""])
    process.start()

    with pytest.raises(StandaloneError) as error:
        process.wait_until(lambda: "nothing", limit_seconds=10)

    assert "a server ended during start with status 3" in str(error.value)
    assert "the password is ***" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_the_error_for_a_child_that_is_never_ready_says_what_is_missing(make):
    with make(SLEEP) as process, pytest.raises(StandaloneError, match=r"not ready within 0.1 s \(PONG\)"):
        process.wait_until(lambda: "PONG", limit_seconds=0.1)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period_with_a_log_line(make, tmp_path, caplog):
    process = make(shell(f"trap '' TERM; echo > {tmp_path / 'ready'}; while :; do sleep 1; done"), grace_seconds=0.3)
    process.start()
    wait_for(tmp_path / "ready")

    assert process.stop() == -signal.SIGKILL
    assert "a server did not stop within 0.3 s and is killed" in caplog.text


def test_a_suspended_child_stops_gracefully(make, tmp_path):
    process = make(shell(f"trap 'exit 7' TERM; echo > {tmp_path / 'ready'}; while :; do sleep 0.05; done"))
    process.start()
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGSTOP)

    assert process.stop() == 7


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_processes_in_the_group_of_the_child_end_with_it(make, tmp_path, how):
    process = make(shell(f"sleep 600 & echo $! > {tmp_path / 'pid'}; wait"))
    process.start()
    wait_for(tmp_path / "pid")
    grandchild = int((tmp_path / "pid").read_text())

    getattr(process, how)()

    assert gone_within(grandchild, 5)


def test_signals_are_back_at_their_defaults(make, tmp_path):
    process = make(["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    process.start()

    assert process.wait(10)
    process.stop()
    masks = [int(line.split()[1], 16) for line in (tmp_path / "log").read_text().splitlines()]
    # Signals 32 and 33 are reserved for the C library and cannot be changed through it.
    changed = [{number for number in signal.valid_signals() if mask >> (number - 1) & 1} for mask in masks]
    assert changed == [set(), set()]


def test_a_missing_program_is_named(make):
    process = make(["/nowhere/server"])
    process.start()

    with pytest.raises(StandaloneError, match="cannot execute /nowhere/server: No such file"):
        process.wait_until(lambda: "nothing", limit_seconds=10)


def test_a_log_that_cannot_be_written_is_an_error(make, tmp_path):
    process = make(SLEEP, log=tmp_path / "none" / "log")

    with pytest.raises(StandaloneError, match=r"a server cannot be started: .*none/log"):
        process.start()
    assert not process.running


def test_it_starts_only_once(make):
    with make(SLEEP) as process, pytest.raises(StandaloneError, match="has already been started"):
        process.start()


def test_stopping_a_process_that_was_never_started_is_no_error(make):
    assert make(SLEEP).stop() is None


def test_the_child_holds_its_lock_until_it_exits(make, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.processes.service._LOCK_SECONDS", 0.1)
    options = {"lock": tmp_path / "lock"}
    with make(SLEEP, **options), pytest.raises(StandaloneError, match="another server runs on the same data"):
        make(SLEEP, **options, log=tmp_path / "other").start()

    with make(SLEEP, **options) as process:
        assert process.running


def test_the_child_outlives_the_thread_that_started_it(make):
    process = make(SLEEP)
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()

    assert not process.wait(0.3)
    process.stop()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("death_signal", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_does_not_outlive_a_parent_that_is_killed(tmp_path, death_signal, at_once):
    script = f"""
        import signal, time
        from pathlib import Path
        from worker.processes.service import ServiceProcess
        log = Path({str(tmp_path / "log")!r})
        process = ServiceProcess("s", {SLEEP!r}, log=log, death_signal=signal.{death_signal.name})
        process.start()
        print(process.pid, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as parent:
        pid = int(parent.stdout.readline())
        while not at_once and psutil.Process(pid).name() != "sleep":  # until it executes the server
            time.sleep(0.01)
        parent.kill()

    assert gone_within(pid, 5)


def test_interrupted_at_any_moment_of_its_start_it_leaves_no_process(make):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(psutil.Process().children(recursive=True))
    old = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for step in range(40):
            process = make(SLEEP)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + step * 0.00025)
                process.start()
                time.sleep(0.1)
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                process.kill()
            assert set(psutil.Process().children(recursive=True)) == before
    finally:
        signal.signal(signal.SIGALRM, old)
    assert interrupted == 40
