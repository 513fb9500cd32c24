"""Measure the peak memory of a network: of a process without its streams, and of each stream.

    process    peak with one stream - one stream
    stream     peak with two streams - peak with one

Each number of streams runs in a child process of its own, because a peak never falls again. `worker plan` reads the
result from the bundle manifest.
"""

from __future__ import annotations

import importlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.contract.errors import BundleError, MaskmillError
from worker.contract.input_size import InputSize
from worker.contract.settings import PlanSettings
from worker.cpu import isa, pinning, placement, topology
from worker.model.format.manifest import PeakMemory
from worker.model.format.variant import Variant
from worker.processes.memory import peak_bytes
from worker.processes.parent_death import bound_to_parent

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision

_MODULE = "worker.convert.peak_memory"


def measure(variant: Variant) -> dict[str, PeakMemory]:
    """Return the peak memory by arithmetic of the float part: f32, and what this CPU prefers.

    Raises:
        BundleError: a process died, most likely for lack of memory, or the network cannot be loaded.
    """
    machine = topology.read()
    cpus = tuple(placement.plan(machine, PlanSettings(processes=1)).core_sets[0].cpus)[:2]
    best = isa.recommend(machine.flags, machine.memory_bytes).inference_precision
    kinds: tuple[FloatPrecision, ...] = ("f32",) if best == "f32" else ("f32", best)
    return {kind: _of(variant, kind, cpus) for kind in kinds}


def manifest_section(measured: Mapping[str, Mapping[str, PeakMemory]]) -> dict[str, dict[str, dict[str, int]]]:
    """Return section `memory` of a bundle manifest.

    Args:
        measured: path of a graph relative to the bundle -> what `measure` returned for it.
    """
    return {path: {kind: peak.model_dump() for kind, peak in peaks.items()} for path, peaks in measured.items()}


def _of(variant: Variant, arithmetic: FloatPrecision, cpus: tuple[int, ...]) -> PeakMemory:
    one = _peak(variant, arithmetic, cpus[:1])
    # With a single core, the whole process counts as a stream as well, which errs on the safe side.
    stream = max(_peak(variant, arithmetic, cpus) - one, 1) if len(cpus) > 1 else one
    return PeakMemory(process_mib=max(one - stream, 1), stream_mib=stream)


def _peak(variant: Variant, arithmetic: FloatPrecision, cpus: tuple[int, ...]) -> int:
    """The peak of a process with one stream for each of the CPUs, in MiB."""
    files = {"xml": str(variant.xml), "bin": str(variant.bin)}
    given = files | {"name": variant.name, "size": str(variant.size), "precision": variant.precision}
    task = given | {"arithmetic": arithmetic, "cpus": cpus}
    # -P: a folder named `worker` in the working directory must not be imported
    command = bound_to_parent([sys.executable, "-P", "-m", _MODULE], signal.SIGKILL)
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}
    if "peak" in answer:
        return int(answer["peak"])
    said = answer.get("error") or (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise BundleError(
        f"the process that measured the memory of {variant.label} failed: {said}; check the kernel's log for a lack of "
        "memory, or use a larger machine"
    )


def main() -> int:
    """Measure the task on standard input, in a process of its own."""
    task = json.load(sys.stdin)
    # Pinned before the process imports anything that starts threads (NumPy, OpenVINO).
    pinning.pin(task["cpus"])
    size = InputSize.parse(task["size"])
    variant = Variant(task["name"], size, task["precision"], Path(task["xml"]), Path(task["bin"]), "")
    answer: dict[str, Any]
    try:
        answer = {"peak": _peak_here(variant, task["arithmetic"], len(task["cpus"]))}
    except MaskmillError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))
    return 0


def _peak_here(variant: Variant, arithmetic: FloatPrecision, streams: int) -> int:
    engines: Any = importlib.import_module("worker.model.inference.engine")  # in this process only
    logging.getLogger("worker").addHandler(logging.NullHandler())
    with engines.Engine.load(variant, streams=streams, threads=streams, inference_precision=arithmetic) as engine:
        engine.warm_up()
    return peak_bytes() // 2**20


if __name__ == "__main__":
    sys.exit(main())
