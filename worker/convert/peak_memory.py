"""Peak memory of the current process."""

from __future__ import annotations

from pathlib import Path

_KIB_PER_MIB = 1024


def peak_memory_mib() -> int:
    """Return the peak resident set size of this process in MiB (`VmHWM` of proc(5)), or 0 if the kernel omits it.

    Not `ru_maxrss`, which a child process inherits from its parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // _KIB_PER_MIB
    return 0
