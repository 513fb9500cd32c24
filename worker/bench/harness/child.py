"""The process of one contender: pinned first, loaded second, then at the parent's service (see `process`).

python -m worker.bench.harness.child < questions > answers
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

from worker.contract.errors import MaskmillError
from worker.cpu.pinning import pin

NETWORKS = {
    "openvino": ("worker.bench.openvino_network", "open_network"),
    "pytorch": ("worker.bench.other_networks", "open_pytorch"),
    "onnxruntime": ("worker.bench.other_networks", "open_onnxruntime"),
}
"""Jobs that take turns."""

ERRANDS = {
    "prepare": ("worker.bench.prepare", "prepare"),
    "export": ("worker.bench.onnx_export", "export"),
    "profile": ("worker.bench.openvino_network", "profile"),
    "simulate": ("worker.bench.fleet_worker", "simulate"),
}
"""Jobs that end with one answer."""


class Network(Protocol):
    """A loaded network."""

    callers: int
    """Threads that call `infer` at once."""

    def infer(self) -> object:
        """Run the picture of the benchmark once."""

    def facts(self) -> dict[str, Any]:
        """What runs, ready for JSON."""


def main() -> int:
    """Answer until the input ends."""
    answers = _private_stdout()
    request = json.loads(sys.stdin.readline())
    try:
        # Before anything loads: libraries count their CPUs once, and threads made earlier keep the old mask.
        pin(request["cpus"])
        if request["job"] in ERRANDS:
            _say(answers, _job(ERRANDS, request)(request))
            return 0
        network: Network = _job(NETWORKS, request)(request)
        _serve(network, answers)
    except (MaskmillError, ImportError, RuntimeError, OSError, MemoryError) as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _serve(network: Network, answers: IO[str]) -> None:
    with ThreadPoolExecutor(network.callers) as pool:
        run(network, pool, network.callers)  # unmeasured, as the first inference of benchmark_app
        _say(answers, {"facts": network.facts()})
        for line in sys.stdin:
            wall, cpu = run(network, pool, json.loads(line)["images"])
            sample = {"wall_seconds": wall, "cpu_seconds": cpu, "peak_memory_bytes": peak_memory_bytes()}
            _say(answers, sample)


def run(network: Network, pool: ThreadPoolExecutor, images: int) -> tuple[float, float]:
    """Wall and CPU seconds of so many images."""
    cpu, began = _cpu_seconds(), time.perf_counter()
    for done in [pool.submit(network.infer) for _ in range(images)]:
        done.result()
    return time.perf_counter() - began, _cpu_seconds() - cpu


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (`VmHWM` of proc(5))."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _job(jobs: dict[str, tuple[str, str]], request: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    module, name = jobs[request["job"]]
    job: Callable[[dict[str, Any]], Any] = getattr(importlib.import_module(module), name)
    return job


def _private_stdout() -> IO[str]:
    """The pipe to the parent; whatever else this process prints goes to the log instead."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
