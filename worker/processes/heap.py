"""Let a process keep the memory of one picture for the next, within a bound.

glibc gives free memory back to the kernel as soon as the end of a heap is free, and the kernel zeroes it page by page
when it is touched again. Threads that process pictures do so several times per picture: 1,700 page faults and 3 to 4 ms
of CPU time for a mask of 2 megapixels. `worker/images/README.md` has the figures of both ways.
"""

from __future__ import annotations

import ctypes
import os

MMAP_THRESHOLD_BYTES = 32 << 20
"""Blocks from this size on are mapped on their own, and unmapped when they are freed: the planes of pictures from about
30 megapixels on. It is the largest value that glibc takes, and the one that it would reach by itself."""

KEPT_BYTES = 64 << 20
"""Free memory at the end of the heap that stays with the process: the pictures of about eight threads at 2 megapixels.
It is also what glibc keeps by itself after it has freed a block of 32 MiB. It is used before the heap grows."""

ARENAS = 1
"""Heaps of the process. By default each thread has its own, and each would keep `KEPT_BYTES`. Threads meet at the lock
of the heap for microseconds only: blocks up to 1 KiB come from caches of each thread, and pixels from few large ones.
"""

# mallopt(3): number of a parameter, its name in GLIBC_TUNABLES, its environment variable, its value.
_PARAMETERS = (
    (-3, "glibc.malloc.mmap_threshold", "MALLOC_MMAP_THRESHOLD_", MMAP_THRESHOLD_BYTES),
    (-1, "glibc.malloc.trim_threshold", "MALLOC_TRIM_THRESHOLD_", KEPT_BYTES),
    (-8, "glibc.malloc.arena_max", "MALLOC_ARENA_MAX", ARENAS),
)


def keep_memory() -> bool:
    """Keep free memory in this process, except for parameters that the environment sets.

    Call it before the process starts threads: a thread that has a heap of its own keeps it.

    Returns:
        Whether the C library is glibc and took all values; others, such as musl, do not have them.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    tunables = {item.partition("=")[0] for item in os.environ.get("GLIBC_TUNABLES", "").split(":")}
    wanted = [(number, value) for number, name, old, value in _PARAMETERS if not {name, old} & {*tunables, *os.environ}]
    taken = [library.mallopt(number, value) for number, value in wanted]
    return all(taken)


def give_back_memory() -> None:
    """Return all free memory of this process but `KEPT_BYTES` to the kernel, also what lies between blocks in use.

    Only the end of a heap is returned by itself, so that one small block behind a large picture would keep all of its
    memory. It takes about 0.1 ms per MiB. Without glibc, nothing happens.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.malloc_trim(ctypes.c_size_t(KEPT_BYTES))
