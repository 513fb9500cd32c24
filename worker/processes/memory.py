"""Read the resident memory of a process, now and at its peak, in bytes.

Peak memory is the peak resident set size of a process since its last exec: `VmHWM` of proc(5). The kernel counts it in
the address space, and exec starts a new one, so a child begins at zero however large its parent is.

`ru_maxrss` of getrusage(2) and wait4(2) is another figure and must not be used for children. At exec the kernel adds
the peak of the old address space to it, and between fork and exec that is the address space of the parent, or a copy
of it: a child of a parent that once held 1 GiB reports at least 1 GiB.

A process that was forked without an exec shares the pages of its parent; they count as resident, and so does its peak.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident set size of a process in bytes (`VmRSS`); by default of this process.

    Raises:
        ProcessLookupError: the process has ended.
    """
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int | None = None) -> int:
    """Return the peak resident set size of a process since its last exec in bytes; by default of this process.

    Raises:
        ProcessLookupError: the process has ended; its address space is gone with the figure.
    """
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int | None, field: str) -> int:
    """Read a field of /proc/PID/status that is given in KiB."""
    status = _PROC / ("self" if pid is None else str(pid)) / "status"
    try:
        lines = status.read_text("utf-8", "replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has ended: {status} has no {field}")  # a zombie has no memory fields
