"""Start a program that ends when its parent process dies.

This module is also a script, so that no Python code runs between fork and exec in a process that has threads:

    python -I -S parent_death.py PARENT_PID SIGNAL PROGRAM ARGUMENT...

The kernel sends SIGNAL to the program when the parent has died for any reason (prctl(2), PR_SET_PDEATHSIG; the setting
survives exec). Needs Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CANNOT_EXECUTE = 126  # the exit status of shells in this case


def bound_to_parent(command: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """Return the command line that runs `command` bound to the life of the calling process.

    Args:
        command: absolute path of the program, then its arguments.
        death_signal: the signal that the program gets when the thread that started it has ended.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), *command]


def main(parent_pid: int, death_signal: int, command: list[str]) -> None:
    """Request the death signal, restore the default signal handling, and execute `command`."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # the parent died before prctl: no signal will come
        sys.exit("the parent process ended while this one was starting")
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:  # set by Python or by the parent; would survive exec
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execv(command[0], command)  # noqa: S606 -- no shell is needed
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error.strerror}\n")
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
