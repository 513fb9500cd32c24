"""No service outlives the process that started it: Ctrl-C, SIGKILL, and running as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def script(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program whose output is read line by line."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ports_in_use(state: Path) -> list[int]:
    file = state / "ports.json"
    return [p for p in json.loads(file.read_text()).values() if not ports.is_free(p)] if file.exists() else []


def processes_of(state: Path) -> list[psutil.Process]:
    """Return all processes with a working directory in the state folder, whatever their parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd().startswith(str(state)):
                found.append(process)
    return found


def test_ctrl_c_at_any_moment_leaves_no_process_and_no_listener(tmp_path):
    state = tmp_path / "state"
    text = """
        import sys
        from pathlib import Path
        from worker.standalone.services import Standalone
        while True:
            try:
                print("starting", flush=True)
                with Standalone(Path(sys.argv[1])):
                    print("up", flush=True)
                    sys.stdin.readline()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                sys.stdin.readline()
    """
    with script(text, str(state)) as process:
        for seconds in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, None):
            assert process.stdout.readline() == "starting\n"
            if seconds is None:
                assert process.stdout.readline() == "up\n"
                assert len(processes_of(state)) == 2
            else:
                time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            answers = [process.stdout.readline()]
            if answers == ["up\n"]:  # the start finished before the signal was sent
                answers.append(process.stdout.readline())
            assert answers[-1] == "interrupted\n"

            assert psutil.Process(process.pid).children(recursive=True) == []
            assert processes_of(state) == []
            assert ports_in_use(state) == []
            process.stdin.write("\n")
            process.stdin.flush()


class Swallower:
    """Raises SIGINT in its finaliser, where Python swallows the KeyboardInterrupt."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_swallowed_by_a_finaliser_is_raised_by_start(tmp_path, monkeypatch):
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: swallowed.append(what.exc_type))
    monkeypatch.setattr(Valkey, "_missing", lambda self: Swallower() and None)
    state = tmp_path / "state"

    with pytest.raises(KeyboardInterrupt):
        Standalone(state).start()

    assert swallowed == [KeyboardInterrupt]
    assert processes_of(state) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_ctrl_c_swallowed_by_a_finaliser_is_raised_by_stop(tmp_path, monkeypatch):
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: swallowed.append(what.exc_type))
    state = tmp_path / "state"
    services = Standalone(state)
    services.start()
    monkeypatch.setattr(Valkey, "_after_end", lambda self: Swallower() and None)

    with pytest.raises(KeyboardInterrupt):
        services.stop()

    assert set(swallowed) == {KeyboardInterrupt}
    assert processes_of(state) == []


def runs(pid: int) -> bool:
    """Return whether a process is running, i.e. neither gone nor a zombie that init has not reaped yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_services_end_with_a_killed_owner_and_the_next_owner_finds_data_and_ports(tmp_path):
    text = """
        import sys
        from pathlib import Path
        from worker.contract.s3url import S3Url
        from worker.contract.storage.s3 import ObjectStore
        from worker.standalone.services import Standalone
        with Standalone(Path(sys.argv[1])) as services:
            with ObjectStore(services.s3.settings) as store:
                store.put(S3Url("maskmill", "k"), b"acknowledged", content_type="text/plain")
            print(services.s3_endpoint, *services.pids.values(), flush=True)
            sys.stdin.readline()
    """
    with script(text, str(tmp_path / "state")) as owner:
        endpoint, *pids = owner.stdout.readline().split()
        assert len(pids) == 2
        owner.send_signal(signal.SIGKILL)
        owner.wait()

    # A next owner that starts at once waits for the old servers to exit instead of choosing other ports.
    with Standalone(tmp_path / "state") as services, ObjectStore(services.s3.settings) as store:
        assert len(processes_of(services.state)) == 2
        assert not [pid for pid in pids if runs(int(pid))]
        assert services.s3_endpoint == endpoint
        assert store.get(S3Url("maskmill", "k"), max_bytes=100)[0] == b"acknowledged"
