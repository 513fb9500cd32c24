"""What every process of ours does before it becomes its program: it ties its life to that of its parent.

A script of its own, so that nothing of Python has to run between fork and exec of a process with threads:

    python -I -S tie.py PARENT_PID SIGNAL PROGRAM ARGUMENT...

The kernel sends SIGNAL to the child when its parent is gone, however that came about (prctl(2), PR_SET_PDEATHSIG; the
setting survives exec). Needs Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CANNOT_EXECUTE = 126  # as shells do


def tied(command: Sequence[str], death_signal: signal.Signals) -> list[str]:
    """The command line that runs `command` tied to the calling process.

    Args:
        command: absolute path of the program, then its arguments.
        death_signal: what it gets when the thread that started it has ended.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), *command]


def main(parent_pid: int, death_signal: int, command: list[str]) -> None:
    """Tie, put the signals back to their defaults, and become `command`."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # it died before prctl, so no signal will come
        sys.exit("the parent process ended while this one was starting")
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:  # by Python or by whoever started us; it would outlast exec
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execv(command[0], command)  # noqa: S606 -- no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error.strerror}\n")
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
