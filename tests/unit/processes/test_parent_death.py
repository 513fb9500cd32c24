"""The signal that the kernel sends when a parent dies, tested with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from worker.processes import parent_death

ROOT = Path(__file__).parents[3]

# Starts a child that sleeps for a minute, prints the pid of the child, and waits to be killed.
PARENT = """
    import signal, subprocess, sys, time
    from worker.processes.parent_death import bound_to_parent
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    if {bind}:
        command = bound_to_parent(command, signal.SIGTERM)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("bound", [True, False])
def test_a_child_ends_when_its_parent_is_killed(bound):
    code = textwrap.dedent(PARENT).format(bind=bound)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            assert ended(child, 10 if bound else 0.5) is bound
        finally:
            if not ended(child, 0.01):
                os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_has_already_died_ends_at_once():
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    command = parent_death.bound_to_parent([sys.executable, "-c", "print('ran')"], signal.SIGTERM)
    command[4] = str(gone.pid)

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1 and "parent process ended" in done.stderr and not done.stdout


def test_a_missing_program_is_named():
    done = subprocess.run(
        parent_death.bound_to_parent(["/no/such/program"], signal.SIGTERM), capture_output=True, text=True, check=False
    )

    assert done.returncode == parent_death.CANNOT_EXECUTE and "/no/such/program" in done.stderr
