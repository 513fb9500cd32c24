"""Free memory that a process keeps, in processes of their own: settings of glibc last as long as the process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.processes import heap

ROOT = Path(__file__).parents[3]
IS_GLIBC = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason="another C library than glibc")

PICTURES = """
import resource, threading
from worker.processes.heap import KEPT_BYTES, give_back_memory, keep_memory
from worker.processes.memory import resident_bytes

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def picture(megabytes=3):
    planes = [bytearray(b"x") * (megabytes << 20) for _ in range(5)]
    while planes:
        planes.pop()

def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
"""

FAULTS = """
def pictures():
    for number in range(25):
        picture()
        if number == 4:
            before.append(faults())
    after.append(faults())

before, after = [], []
in_thread(pictures)
print(after[0] - before[0])
"""

RESIDENT = """
keep_memory()
before, blocks = resident_bytes(), []
in_thread(lambda: (picture(30), blocks.append(bytearray(b"x") * 100_000)))
kept = resident_bytes() - before
planes = [bytearray(b"x") * (30 << 20) for _ in range(5)]
blocks.append(bytearray(b"x") * 100_000)  # behind them, so that their memory is not the end of the heap
del planes
between = resident_bytes() - before
give_back_memory()
print(kept, between, resident_bytes() - before)
"""


def child(code, **environ):
    """Run code in a process of its own and return the numbers that it prints."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PICTURES + code],
        env=plain | environ,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return [int(number) for number in done.stdout.split()]


@needs_glibc
def test_pictures_reuse_the_memory_of_those_before():
    (kept,) = child("assert keep_memory()\n" + FAULTS)
    (given_back,) = child(FAULTS)

    assert kept < 100
    assert given_back > 20_000, "nothing was given back: the test proves nothing"


@needs_glibc
def test_what_is_kept_is_bounded():
    kept, between, given_back = child(RESIDENT)

    assert kept < heap.KEPT_BYTES + (8 << 20)
    assert between > 100 << 20, "nothing lay between blocks in use: the test proves nothing"
    assert given_back < heap.KEPT_BYTES + (8 << 20)


class Library:
    """Stands in for a C library, and records the parameters that it is given."""

    def __init__(self):
        self.told = {}

    def mallopt(self, number, value):
        self.told[number] = value
        return 1

    def gnu_get_libc_version(self):
        return b"2.36"


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: found)
    for name in [*os.environ]:
        if name.startswith(("GLIBC_", "MALLOC_")):
            monkeypatch.delenv(name)
    return found


ALL = {-3: heap.MMAP_THRESHOLD_BYTES, -1: heap.KEPT_BYTES, -8: heap.ARENAS}


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", set()),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=4", {-8}),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1:glibc.malloc.mmap_threshold=1", {-1, -3}),
        ("MALLOC_ARENA_MAX", "4", {-8}),
        ("MALLOC_TRIM_THRESHOLD_", "131072", {-1}),
    ],
)
def test_what_the_operator_set_stays(library, monkeypatch, name, value, left):
    monkeypatch.setenv(name, value)

    assert heap.keep_memory()
    assert library.told == {number: value for number, value in ALL.items() if number not in left}


def test_a_value_that_is_refused_is_reported(library, monkeypatch):
    monkeypatch.setattr(library, "mallopt", lambda number, value: int(number != -3), raising=False)

    assert not heap.keep_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())

    assert not heap.keep_memory()
    heap.give_back_memory()
