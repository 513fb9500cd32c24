"""How busy the CPUs of this process are, before something is measured on them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

_IDLE_FIELDS = slice(3, 5)
"""Fields `idle` and `iowait` of a line of /proc/stat (proc_stat(5))."""

_COUNTED_FIELDS = 8
"""Guests, the two last fields, are counted in `user` and `nice` already."""


def busy_cpus(cpus: Iterable[int], seconds: float, root: Path = Path("/")) -> float:
    """Return how many of some CPUs other programs kept busy on average, while this thread slept.

    Args:
        cpus: numbers of the CPUs.
        seconds: time to watch them.
        root: folder that holds `proc`.
    """
    wanted = {f"cpu{number}" for number in cpus}
    before = _times(root, wanted)
    time.sleep(seconds)
    busy = 0.0
    for name, (total, idle) in _times(root, wanted).items():
        spent = total - before.get(name, (total, idle))[0]
        if spent > 0:
            busy += 1 - (idle - before[name][1]) / spent
    return busy


def _times(root: Path, wanted: set[str]) -> dict[str, tuple[int, int]]:
    """Return CPU -> its time in all states and its idle time, in clock ticks since the start of the machine."""
    found = {}
    for line in (root / "proc/stat").read_text("ascii").splitlines():
        name, *fields = line.split()
        if name in wanted:
            ticks = [int(field) for field in fields[:_COUNTED_FIELDS]]
            found[name] = sum(ticks), sum(ticks[_IDLE_FIELDS])
    return found
