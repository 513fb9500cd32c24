"""OpenVINO's own `benchmark_app` as a contender: the same file, settings, picture and number of images per turn.

Like every contender it loads the network again for each turn; its measurement excludes that. Run as a module, this is
the process of benchmark_app: pinned, and without OpenVINO's telemetry, which the console script of the wheel sends. It
adds two figures that benchmark_app does not give: CPU time of the measuring loop, and peak memory.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker.bench.harness.measure import TurnTiming
from worker.bench.harness.process import environment, tail
from worker.bench.harness.requests import NetworkRequest
from worker.contract.errors import SetupError
from worker.cpu.pinning import pin
from worker.processes.memory import peak_bytes
from worker.processes.parent_death import bound_to_parent

REPORT = "benchmark_report.json"
CPU_TIME = "cpu_seconds"
PEAK_MEMORY = "peak_memory_bytes"
_ITERATIONS = "total number of iterations"
_MILLISECONDS = "total execution time (ms)"


class BenchmarkApp:
    """A `measure.TurnTaker` that runs every turn in a new process."""

    def __init__(self, request: NetworkRequest, *, images: int, log: Path) -> None:
        """Prepare the contender; no process starts yet.

        Args:
            request: with `cpus`, `variant`, `arithmetic`, `streams`, `threads` and `normalised`.
            images: of one turn; a multiple of streams + 1, because benchmark_app would round it up.
            log: file for the output of the process; appended to.
        """
        self._cpus, self._images, self._log = request["cpus"], images, log
        self.arguments = arguments(request, images)
        self.facts: dict[str, Any] = {"arguments": self.arguments}
        self.peak_memory_bytes = 0

    def turn(self) -> TurnTiming:
        """Run benchmark_app once. See `measure.TurnTaker`."""
        with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
            command = [sys.executable, "-m", "worker.bench.benchmark_app", json.dumps(self._cpus), folder]
            words = [*command, *self.arguments, "-report_folder", folder]
            with self._log.open("ab") as printed:
                done = subprocess.run(
                    bound_to_parent(words, signal.SIGKILL),
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    env=environment(),
                    check=False,
                )
            if done.returncode:
                raise SetupError(f"benchmark_app ended with {done.returncode}; {tail(self._log)}")
            timing, peak = read_report(Path(folder))
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak)
            return timing


def arguments(request: NetworkRequest, images: int) -> list[str]:
    """Return the command line that matches how the engine runs the same network."""
    variant = request["variant"]
    if variant is None:
        raise ValueError("benchmark_app needs a variant")
    options = {
        "-m": variant["xml"],
        "-i": request["normalised"],
        "-d": "CPU",
        "-hint": "none",
        "-api": "async",
        "-nstreams": request["streams"],
        "-nthreads": request["threads"],
        "-nireq": request["streams"] + 1,
        "-niter": images,
        "-pin": "YES",
        "-infer_precision": request["arithmetic"],
        "-ip": "f32",  # by default it takes the input for a picture and feeds bytes
        "-report_type": "no_counters",
    }
    return [str(word) for pair in options.items() for word in pair] + ["-json_stats"]


def read_report(folder: Path) -> tuple[TurnTiming, int]:
    """Return the timing of a turn and the peak memory in bytes.

    Computed from the total time, which has two decimals of a millisecond; the throughput in the report is too coarse.

    Raises:
        SetupError: there is no report, or its form is not the known one.
    """
    try:
        results = json.loads((folder / REPORT).read_text("utf-8"))["execution_results"]
        cpu_seconds = float((folder / CPU_TIME).read_text("ascii"))
        peak = int((folder / PEAK_MEMORY).read_text("ascii"))
        return TurnTiming(int(results[_ITERATIONS]), float(results[_MILLISECONDS]) / 1000, cpu_seconds), peak
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"benchmark_app left no readable report ({type(error).__name__}: {error})") from error


def main() -> None:
    """Run benchmark_app on the CPUs of argument 1; write CPU time and peak memory to the folder of argument 2."""
    pin(json.loads(sys.argv.pop(1)))
    folder = Path(sys.argv.pop(1))
    importlib.import_module("worker.model.inference.runtime")
    _note_cpu_time(importlib.import_module("openvino.tools.benchmark.benchmark").Benchmark, folder / CPU_TIME)
    importlib.import_module("openvino.tools.benchmark.main").main()
    (folder / PEAK_MEMORY).write_text(str(peak_bytes()), "ascii")


def _note_cpu_time(tool: Any, file: Path) -> None:
    """Read the clock before and after the tool's measuring loop, which itself is unchanged."""
    loop = tool.main_loop

    def main_loop(*arguments: Any) -> Any:
        began = time.process_time()
        results = loop(*arguments)
        file.write_text(str(time.process_time() - began), "ascii")
        return results

    tool.main_loop = main_loop


if __name__ == "__main__":
    main()
