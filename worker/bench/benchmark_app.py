"""OpenVINO's own `benchmark_app` as a contender: the same file, settings, picture and number of images per turn.

Like every contender it loads the network anew for each turn, which its measurement leaves out. Run as a module it is
that process: pinned, without OpenVINO's telemetry, which the console script of the wheel would have, and with the CPU
time of its measuring loop noted, the one figure that benchmark_app does not give.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker.bench.harness.measure import Sample
from worker.bench.harness.process import environment, tail
from worker.contract.errors import SetupError
from worker.cpu.pinning import pin
from worker.processes.parent_death import bound_to_parent

REPORT = "benchmark_report.json"
CPU_TIME = "cpu_seconds"
_ITERATIONS = "total number of iterations"
_MILLISECONDS = "total execution time (ms)"


class BenchmarkApp:
    """A `measure.Runner`; every turn is a process of its own."""

    def __init__(self, request: dict[str, Any], *, images: int, log: Path) -> None:
        """Nothing runs yet.

        Args:
            request: `cpus`, `variant` (with `xml`), `arithmetic`, `streams`, `threads`, `normalised` (.npy).
            images: of one turn, a multiple of streams + 1, or benchmark_app rounds it up.
            log: file for what it prints; added to.
        """
        self._cpus, self._images, self._log = request["cpus"], images, log
        self.arguments = arguments(request, images)
        self.facts: dict[str, Any] = {"arguments": self.arguments}
        self.peak_memory_bytes = 0

    def turn(self) -> Sample:
        """See `measure.Runner`."""
        with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
            command = [sys.executable, "-m", "worker.bench.benchmark_app", json.dumps(self._cpus), folder]
            words = [*command, *self.arguments, "-report_folder", folder]
            with self._log.open("ab") as printed:
                process = subprocess.Popen(
                    bound_to_parent(words, signal.SIGKILL),
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    env=environment(),
                )
                # wait4 and not wait: only it tells the peak memory of this very process.
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SetupError(f"benchmark_app ended with {process.returncode}; {tail(self._log)}")
            self.peak_memory_bytes = max(self.peak_memory_bytes, usage.ru_maxrss * 1024)
            return read_report(Path(folder))


def arguments(request: dict[str, Any], images: int) -> list[str]:
    """The command line that matches how the engine runs the same network."""
    options = {
        "-m": request["variant"]["xml"],
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
        "-ip": "f32",  # unless told it feeds bytes, taking the input for a picture
        "-report_type": "no_counters",
    }
    return [str(word) for pair in options.items() for word in pair] + ["-json_stats"]


def read_report(folder: Path) -> Sample:
    """The turn that a report tells of; its times have two decimals of a millisecond, its throughput is too coarse.

    Raises:
        SetupError: no such report, or not of the known form.
    """
    try:
        results = json.loads((folder / REPORT).read_text("utf-8"))["execution_results"]
        cpu_seconds = float((folder / CPU_TIME).read_text("ascii"))
        return Sample(int(results[_ITERATIONS]), float(results[_MILLISECONDS]) / 1000, cpu_seconds)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"benchmark_app left no readable report ({type(error).__name__}: {error})") from error


def main() -> None:
    """Be benchmark_app on the CPUs of the first argument; the second is the folder for the CPU time."""
    pin(json.loads(sys.argv.pop(1)))
    folder = Path(sys.argv.pop(1))
    importlib.import_module("worker.model.inference.runtime")
    _note_cpu_time(importlib.import_module("openvino.tools.benchmark.benchmark").Benchmark, folder / CPU_TIME)
    importlib.import_module("openvino.tools.benchmark.main").main()


def _note_cpu_time(tool: Any, file: Path) -> None:
    """Look at the clock before and after the tool's measuring loop, which itself stays as it is."""
    loop = tool.main_loop

    def main_loop(*arguments: Any) -> Any:
        began = time.process_time()
        results = loop(*arguments)
        file.write_text(str(time.process_time() - began), "ascii")
        return results

    tool.main_loop = main_loop


if __name__ == "__main__":
    main()
