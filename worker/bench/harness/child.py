"""The child process of one contender: it pins itself, loads, then answers its parent (see `process`).

python -m worker.bench.harness.child < questions > answers
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Protocol

from worker.bench.harness.process import TurnAnswer
from worker.contract.errors import MaskmillError
from worker.cpu.pinning import pin
from worker.processes.memory import peak_bytes

TURN_JOBS = {
    "openvino": ("worker.bench.openvino_network", "open_network"),
    "pytorch": ("worker.bench.other_networks", "open_pytorch"),
    "onnxruntime": ("worker.bench.other_networks", "open_onnxruntime"),
}
"""Jobs that take turns: module and function that opens the network."""

ONE_ANSWER_JOBS = {
    "prepare": ("worker.bench.prepare", "prepare"),
    "export": ("worker.bench.onnx_export", "export"),
    "profile": ("worker.bench.openvino_network", "profile"),
    "simulate": ("worker.bench.fleet_worker", "simulate"),
}
"""Jobs that end with one answer."""


class Network(Protocol):
    """A loaded network."""

    callers: int
    """Threads that call `infer` at the same time."""

    def infer(self) -> object:
        """Run the picture of the benchmark once."""

    def facts(self) -> dict[str, Any]:
        """Describe what runs, ready for JSON."""


def main() -> int:
    """Answer until the input ends; return 0, or 1 after reporting an error."""
    answers = _private_stdout()
    request = json.loads(sys.stdin.readline())
    try:
        # Pin before anything loads: libraries count their CPUs once, and threads made earlier keep the old mask.
        pin(request["cpus"])
        if request["job"] in ONE_ANSWER_JOBS:
            _send(answers, _job(ONE_ANSWER_JOBS, request)(request))
            return 0
        network: Network = _job(TURN_JOBS, request)(request)
        _serve(network, answers)
    except (MaskmillError, ImportError, RuntimeError, OSError, MemoryError) as error:
        _send(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _serve(network: Network, answers: IO[str]) -> None:
    with ThreadPoolExecutor(network.callers) as pool:
        run(network, pool, network.callers)  # warm-up, as benchmark_app does with its first inference
        _send(answers, {"facts": network.facts()})
        for line in sys.stdin:
            wall, cpu = run(network, pool, json.loads(line)["images"])
            answer: TurnAnswer = {"wall_seconds": wall, "cpu_seconds": cpu, "peak_memory_bytes": peak_bytes()}
            _send(answers, answer)


def run(network: Network, pool: ThreadPoolExecutor, images: int) -> tuple[float, float]:
    """Run a number of images; return wall and CPU seconds of all of them together."""
    cpu, began = _cpu_seconds(), time.perf_counter()
    for done in [pool.submit(network.infer) for _ in range(images)]:
        done.result()
    return time.perf_counter() - began, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _job(jobs: Mapping[str, tuple[str, str]], request: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    module, name = jobs[request["job"]]
    job: Callable[[Mapping[str, Any]], Any] = getattr(importlib.import_module(module), name)
    return job


def _private_stdout() -> IO[str]:
    """Return the pipe to the parent, and send everything else that this process prints to the log."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _send(answers: IO[str], answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
