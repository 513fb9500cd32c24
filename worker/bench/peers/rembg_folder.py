"""`rembg p IN OUT` as a contestant: its own program, in its own environment, pinned to the same CPUs.

    rate = (pictures of the long run - pictures of the short run) / (time of the long run - time of the short run)

The difference takes off the start of the program and the loading of the network, which both runs have. If the start
varies by more than the pictures take, there is no difference to be had, and the rate is that of the whole long run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from worker.bench.harness.process import tail
from worker.bench.quality import rembg
from worker.bench.quality.rembg import RembgNetwork
from worker.contract.errors import SetupError
from worker.cpu.kernel import format_cpu_list
from worker.processes.memory import peak_bytes

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class FolderRun:
    """One run of a program over a folder."""

    images: int
    seconds: float
    """From the start of the program to its end."""
    cpu_seconds: float
    peak_mib: int


def run(network: RembgNetwork, source: Path, output: Path, cache: Path, cpus: tuple[int, ...]) -> FolderRun:
    """Let rembg cut out all pictures of a folder.

    Args:
        network: rembg's name of the network, and the weights.
        source: folder of pictures.
        output: folder for the cut-outs; created.
        cache: folder of rembg's environment.
        cpus: CPUs of the process; it computes with as many threads.

    Raises:
        SetupError: rembg cannot be installed, fails, or leaves a picture out.
    """
    program = rembg.interpreter(cache).with_name("rembg")
    output.mkdir(parents=True)
    log = output.with_name(f"{output.name}.log")
    pin = [sys.executable, "-m", "worker.bench.harness.pin_exec", format_cpu_list(cpus)]
    with log.open("wb") as printed:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*pin, str(program), "p", "-m", network.session, str(source), str(output)],
            stdout=printed,
            stderr=printed,
            env=rembg.environment(network, output.with_name(f"{output.name}-weights"), cpus),
        )
        peak, usage = _watch(process)
        seconds = time.perf_counter() - began
    expected, made = len(list(source.iterdir())), len(list(output.glob("*.png")))
    if process.returncode or made != expected:
        raise SetupError(
            f"rembg p -m {network.session} ended with exit status {process.returncode} and {made} of {expected} "
            f"cut-outs: {tail(log)}"
        )
    return FolderRun(made, seconds, usage.ru_utime + usage.ru_stime, peak // 2**20)


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """Wait for the end of a process; return its peak memory in bytes and its CPU time.

    Its peak is read while it runs: it is gone with the process, and `ru_maxrss` would count this process as well.
    """
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so that Popen does not wait for it
            return peak, usage
        with contextlib.suppress(ProcessLookupError):
            peak = max(peak, peak_bytes(process.pid))
        time.sleep(_LOOK_SECONDS)
