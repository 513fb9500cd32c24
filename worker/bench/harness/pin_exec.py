"""Pin this process to CPUs, then become a command: python -m worker.bench.harness.pin_exec CPUS COMMAND..."""

from __future__ import annotations

import os
import sys

from worker.cpu.kernel import parse_cpu_list
from worker.cpu.pinning import pin

if __name__ == "__main__":
    pin(parse_cpu_list(sys.argv[1], "the first argument"))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 -- the caller's own command
