"""Pin a process to its core set.

The supervisor calls `pin` between fork and exec: OpenVINO reads the affinity mask once, at its first use, and threads
that exist before `pin` keep the old mask. Threads and processes started later inherit the new one. `thread_masks` shows
the mask of every thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.contract.errors import PlacementError
from worker.cpu.kernel import format_cpu_list, parse_cpu_list

_FORBIDDEN = {
    "KMP_AFFINITY": "it makes Intel's OpenMP bind the main thread",
    "OMP_PROC_BIND": "it makes OpenMP libraries bind the main thread",
    "GOMP_CPU_AFFINITY": "it makes GNU's OpenMP bind the main thread",
}
_CONSEQUENCE = "so OpenVINO may see a single CPU of the core set"


def pin(cpus: Iterable[int]) -> None:
    """Restrict the calling thread, and every thread and process that it starts, to these CPUs.

    Args:
        cpus: CPU ids, at least one.

    Raises:
        PlacementError: the kernel refused, or granted only some of the CPUs.
    """
    requested = set(cpus)
    try:
        os.sched_setaffinity(0, requested)
    except (OSError, ValueError, OverflowError) as error:
        raise PlacementError(
            f"cannot pin to CPUs {format_cpu_list(requested)}: {error}; check that they are online and in the cpuset "
            "of this container"
        ) from error
    granted = os.sched_getaffinity(0)
    if granted != requested:  # the kernel silently drops CPUs that are offline or outside the cpuset
        raise PlacementError(
            f"pinning to CPUs {format_cpu_list(requested)} gave {format_cpu_list(granted)}: the others are offline or "
            "outside the cpuset of this container; plan again"
        )


def thread_masks(pid: int, root: Path = Path("/")) -> dict[int, frozenset[int]]:
    """Return the affinity mask of every thread of a process, by thread id, without threads that end meanwhile.

    Args:
        pid: the process.
        root: parent folder of `proc`; tests pass a recorded one.

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
        raise PlacementError(f"no process {pid}, so its thread masks cannot be read: it has ended, or /proc hides it")
    return masks


def forbidden_variables(environ: Mapping[str, str]) -> list[str]:
    """Return one sentence per environment variable that is set and breaks pinning, beginning with its name."""
    return [f"{name} is set: {how}, {_CONSEQUENCE}." for name, how in _FORBIDDEN.items() if environ.get(name)]


def refuse_forbidden_variables(environ: Mapping[str, str]) -> None:
    """Check that none of `forbidden_variables` is set.

    Raises:
        PlacementError: at least one is set; names all of them.
    """
    found = forbidden_variables(environ)
    if found:
        names = " ".join(sentence.split(" ", 1)[0] for sentence in found)
        raise PlacementError(f"{' '.join(found)} Start again without: unset {names}")
