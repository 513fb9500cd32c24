"""Fuzz graphs and weights of a bundle: a process that loads them refuses them, or runs them, and goes on."""

from __future__ import annotations

import os
import random
import re
import secrets
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from integration.model.tiny_network import SIZE, build, save
from support.commands import environment

pytestmark = pytest.mark.timeout(0)  # limited by the budget

_SLOW_SECONDS = 60.0
"""Time after which a network counts as slow. A worker stops after `watchdog.COMPILE_SECONDS`."""

_NUMBER = re.compile(rb"-?\d+")
_ODD = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"65536",
    b"4294967296",
    b"9223372036854775807",
    b"99999999999999999999",
    b"1e9",
    b"",
)


class Loader:
    """A process that loads one network after the other."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.bundle_loader", str(SIZE)],
            env=environment({"PYTHONPATH": str(Path(__file__).parents[2])}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def load(self, xml: Path) -> str:
        """Return what became of a network; `ended N` after an exit with code N, `slow` if it takes too long."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{xml}\n".encode())
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], _SLOW_SECONDS)[0]:
            return "slow"
        answer = self.process.stdout.readline().decode().strip()
        return answer or f"ended {self.process.wait()}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            assert pipe is not None
            pipe.close()


def changed(draw: random.Random, data: bytes) -> bytes:
    """Return a copy with numbers replaced, bytes changed, or the end cut off."""
    for _ in range(draw.randint(1, 3)):
        kind, at = draw.random(), draw.randrange(max(1, len(data)))
        if kind < 0.5 and (numbers := list(_NUMBER.finditer(data))):
            number = draw.choice(numbers)
            data = data[: number.start()] + draw.choice(_ODD) + data[number.end() :]
        elif kind < 0.9:
            data = data[:at] + draw.randbytes(draw.randrange(4)) + data[at + draw.randrange(8) :]
        else:
            data = data[:at]
    return data


def test_bundles(tmp_path):
    variant = save(build(), tmp_path)
    graph, weights = variant.xml.read_bytes(), variant.bin.read_bytes()
    seed, found = secrets.randbits(32), Counter[str]()
    log = tmp_path / "log"
    draw, loader = random.Random(seed), Loader(log)
    deadline = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "5"))
    try:
        while not found or time.monotonic() < deadline:
            whole = draw.random() < 0.1
            variant.xml.write_bytes(graph if whole else changed(draw, graph))
            variant.bin.write_bytes(changed(draw, weights) if whole or draw.random() < 0.2 else weights)
            fate = loader.load(variant.xml)
            found[fate] += 1
            if fate == "slow" or fate.startswith("ended"):
                loader.close()
                loader = Loader(log)
    finally:
        loader.close()
    ended = sum(count for fate, count in found.items() if fate.startswith("ended"))
    print(f"bundles: {found.total()} inputs, {ended} processes ended, seed {seed}, {dict(found)}")  # noqa: T201 -- with `-s`
    assert ended == 0, log.read_text(errors="replace")[-3000:]
