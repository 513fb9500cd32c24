"""Peak memory of this process and of children, also of children with a large parent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.processes.memory import peak_bytes, resident_bytes

MIB = 2**20
ROOT = Path(__file__).parents[3]

REPORT = "import sys; from worker.processes.memory import peak_bytes; print(peak_bytes(), flush=True); sys.stdin.read()"
"""Print one's own peak in bytes, then stay until the end of the input."""

ALLOCATE = "block = bytearray(b'x') * (200 * 2**20); del block;"
"""Touch 200 MiB and free them."""

LARGE_PARENT = """
import resource, subprocess, sys
block = bytearray(b"x") * (300 * 2**20)
child = subprocess.run([sys.executable, "-c", sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
print(child.stdout.strip(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


@contextmanager
def child(code: str) -> Iterator[tuple[int, int]]:
    """A process that ran `code`, while it lives: its id and the peak that it reports itself."""
    command = [sys.executable, "-c", code + REPORT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def test_an_allocation_counts_after_it_was_freed():
    with child("") as (_, small), child(ALLOCATE) as (pid, large):
        assert 195 * MIB < large - small < 215 * MIB
        assert peak_bytes(pid) == pytest.approx(large, abs=2 * MIB)
        assert resident_bytes(pid) < large - 150 * MIB


def test_a_child_of_a_large_parent_reports_its_own_peak():
    with child("") as (_, alone):
        pass
    done = subprocess.run(
        [sys.executable, "-c", LARGE_PARENT, REPORT], capture_output=True, text=True, check=True, cwd=ROOT
    )

    peak, ru_maxrss = map(int, done.stdout.split())

    assert peak == pytest.approx(alone, abs=4 * MIB)
    assert ru_maxrss > 300 * MIB, "the wrong figure is right here: the test proves nothing"


def test_this_process_is_the_default():
    assert 5 * MIB < resident_bytes() <= peak_bytes() + 2 * MIB
    assert resident_bytes(os.getpid()) == pytest.approx(resident_bytes(), abs=2 * MIB)


def test_an_ended_process_has_no_memory():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie

    with pytest.raises(ProcessLookupError, match=str(process.pid)):
        peak_bytes(process.pid)

    process.wait()
    with pytest.raises(ProcessLookupError, match=str(process.pid)):
        resident_bytes(process.pid)
