"""Two rules for every process maskmill starts: it dies with its parent, and it is found by pid alone."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""

# Loaded at import: between fork and exec only async-signal-safe work is allowed, and loading a library is not.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """In a child between fork and exec: ask the kernel for a signal when the parent's starting thread ends.

    Args:
        number: the signal to get.
        parent: pid of the parent, taken before the fork; if it is gone already, the child ends at once.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
