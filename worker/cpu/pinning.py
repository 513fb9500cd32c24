"""Keeping a process on its core set.

The supervisor calls `pin` between fork and exec, because OpenVINO reads the mask once, at its first use, and threads
made earlier keep the old one; everything the process later starts inherits it. `thread_masks` shows whether it held.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.contract.errors import PlacementError
from worker.cpu.kernel import format_cpu_list, parse_cpu_list

_FORBIDDEN = {
    "KMP_AFFINITY": "Intel's OpenMP binds the main thread by it",
    "OMP_PROC_BIND": "OpenMP libraries bind the main thread by it",
    "GOMP_CPU_AFFINITY": "GNU's OpenMP binds the main thread by it",
}
_CONSEQUENCE = "so OpenVINO may see a single CPU of the core set"


def pin(cpus: Iterable[int]) -> None:
    """Restrict the calling thread, and all that it starts or becomes by exec, to these CPUs.

    Args:
        cpus: CPU ids, at least one.

    Raises:
        PlacementError: the kernel refused, or granted only a part.
    """
    wanted = set(cpus)
    try:
        os.sched_setaffinity(0, wanted)
    except (OSError, ValueError, OverflowError) as error:
        raise PlacementError(
            f"cannot pin to CPUs {format_cpu_list(wanted)}: {error}; are they online and in this container's cpuset?"
        ) from error
    got = os.sched_getaffinity(0)
    if got != wanted:  # the kernel silently drops CPUs that are offline or outside of the cpuset
        raise PlacementError(
            f"pinning to CPUs {format_cpu_list(wanted)} gave {format_cpu_list(got)}: the others are offline or outside "
            "of this container's cpuset; plan again"
        )


def thread_masks(pid: int, root: Path = Path("/")) -> dict[int, frozenset[int]]:
    """Affinity mask of every thread of a process, by thread id. Threads that end meanwhile are left out.

    Args:
        pid: the process.
        root: where /proc lies; tests put a recorded one there.

    Raises:
        PlacementError: there is no such process.
    """
    masks = {}
    for status in (root / "proc" / str(pid) / "task").glob("[0-9]*/status"):
        try:
            lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            if line.startswith("Cpus_allowed_list:"):
                masks[int(status.parent.name)] = parse_cpu_list(line.partition(":")[2], str(status))
    if not masks:
        raise PlacementError(f"no process {pid} to read thread masks of: it has ended, or /proc hides it")
    return masks


def forbidden_variables(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each variable that is set and known to break pinning, beginning with its name."""
    return [f"{name} is set: {how}, {_CONSEQUENCE}." for name, how in _FORBIDDEN.items() if environ.get(name)]


def refuse_forbidden_variables(environ: Mapping[str, str]) -> None:
    """Stop where one of `forbidden_variables` is set.

    Raises:
        PlacementError: names every such variable.
    """
    found = forbidden_variables(environ)
    if found:
        names = " ".join(sentence.split(" ", 1)[0] for sentence in found)
        raise PlacementError(f"{' '.join(found)} Start again without: unset {names}")
