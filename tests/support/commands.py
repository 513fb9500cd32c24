"""Run the two commands as a user does: in separate processes, with settings from the environment only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent

# Prints name -> output of `PROGRAM NAME --help`, for each NAME.
_HELP = """
import importlib, json, sys
from click.testing import CliRunner

program = sys.argv[1]
group = importlib.import_module(f"{program}.cli").cli
help_of = {}
for name in sys.argv[2:]:
    # click prints 78 columns in a terminal of 80 or more, but 80 under its runner.
    wide = {"terminal_width": 78}
    done = CliRunner().invoke(group, [name, "--help"], prog_name=program, catch_exceptions=False, **wide)
    assert done.exit_code == 0, (name, done.exit_code, done.output)
    help_of[name] = done.output
print(json.dumps(help_of))
"""


@dataclass(frozen=True)
class Result:
    """Exit code and output of a finished command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict]:
        """Standard output, parsed as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process, scrubbed by conftest, with settings and the tested commands on PATH."""
    return {**os.environ, **settings, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}


def run(
    command: str, *args: str, settings: Mapping[str, str], timeout: float = 100.0, cwd: Path | None = None
) -> Result:
    """Run `producer` or `worker` to its end; `timeout` in seconds."""
    done = subprocess.run(
        [str(BIN / command), *args],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def help_of_commands(program: str) -> dict[str, str]:
    """Return the help of each command that `PROGRAM --help` lists.

    The program runs twice: without a command, and with its last one. The others are called in one process, since a
    process for each would start Python dozens of times.
    """
    listing = _successful([str(BIN / program), "--help"]).partition("Commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in listing.splitlines() if line[2] != " "]
    assert names
    found: dict[str, str] = json.loads(_successful([sys.executable, "-P", "-c", _HELP, program, *names]))
    assert found[names[-1]] == _successful([str(BIN / program), names[-1], "--help"]), "not what the program prints"
    return found


def _successful(words: list[str]) -> str:
    """Return the standard output of a command that must succeed."""
    done = subprocess.run(words, env=environment({}), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def workers(settings: Mapping[str, str], log: Path, *, grace: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run `worker start` during the block, then stop it by SIGTERM. Asserts that no process of it remains."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [str(BIN / "worker"), "start"], env=environment(settings), stdout=file, stderr=file, start_new_session=True
        )
    family = []
    try:
        yield process
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    wait_for(lambda: not [p for p in family if p.is_running()], "the workers' processes to end", 10)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> object:
    """Poll until the condition is true and return its value; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s for {what}")


def model_processes(supervisor: int) -> list[psutil.Process]:
    """Return the model processes: those two levels below the supervisor."""
    found = []
    for worker in psutil.Process(supervisor).children():
        with suppress(psutil.NoSuchProcess):
            found += worker.children()
    return found


def descendants(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process; none if it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listening_ports(processes: list[psutil.Process]) -> set[int]:
    """Return the TCP ports that these processes listen on."""
    ports = set()
    for process in processes:
        try:
            ports |= {c.laddr.port for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
    return ports
