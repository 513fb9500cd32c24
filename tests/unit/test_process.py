"""The kernel's signal at a parent's death, with real processes."""

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

ROOT = Path(__file__).parents[2]

# Starts a child that would sleep for a minute, tells its pid and waits to be killed.
PARENT = """
    import os, signal, subprocess, sys, time
    from worker.process import die_with_parent
    parent = {parent}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn={hook})
    print(child.pid, flush=True)
    time.sleep({linger})
"""


def start(*, parent: str = "os.getpid()", hook: str = "lambda: die_with_parent(signal.SIGTERM, parent)", linger=60):
    code = textwrap.dedent(PARENT).format(parent=parent, hook=hook, linger=linger)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("hook", "dies"),
    [("lambda: die_with_parent(signal.SIGTERM, parent)", True), ("None", False)],
    ids=["with", "without"],
)
def test_a_child_ends_when_its_parent_is_killed(hook, dies):
    with start(hook=hook) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            assert ended(child, 10 if dies else 0.5) is dies
        finally:
            if not ended(child, 0.01):
                os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_is_gone_already_ends_at_once():
    with start(parent="1") as parent:
        child = int(parent.stdout.readline())
        try:
            assert ended(child, 10)
            assert parent.poll() is None  # so it was no signal at its end
        finally:
            parent.kill()
