"""Measure the peak memory of a network: of a process without its streams, and of each stream.

    process    peak with one stream - one stream
    stream     peak with two streams - peak with one

Each number of streams runs in a child process of its own, because a peak never falls again. `worker plan` reads the
result from the bundle manifest.
"""

from __future__ import annotations

import importlib
import logging
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from worker.contract.errors import BundleError
from worker.contract.settings import PlanSettings
from worker.convert.importing.request import PeakMemory
from worker.convert.peak_memory import peak_memory_mib
from worker.cpu import isa, pinning, placement, topology
from worker.model.format.variant import Variant

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision


def measure(variant: Variant) -> dict[str, PeakMemory]:
    """Return the peak memory by arithmetic of the float part: f32, and what this CPU prefers.

    Raises:
        BundleError: a process died, most likely for lack of memory.
        PlacementError: the CPUs cannot be used.
    """
    machine = topology.read()
    cpus = tuple(placement.plan(machine, PlanSettings(processes=1)).core_sets[0].cpus)[:2]
    best = isa.recommend(machine.flags, machine.memory_bytes).inference_precision
    kinds: tuple[FloatPrecision, ...] = ("f32",) if best == "f32" else ("f32", best)
    return {kind: _of(variant, kind, cpus) for kind in kinds}


def _of(variant: Variant, arithmetic: FloatPrecision, cpus: tuple[int, ...]) -> PeakMemory:
    one = _peak(variant, arithmetic, cpus[:1])
    # With a single core, the whole process counts as a stream as well, which errs on the safe side.
    stream = max(_peak(variant, arithmetic, cpus) - one, 1) if len(cpus) > 1 else one
    return PeakMemory(max(one - stream, 1), stream)


def _peak(variant: Variant, arithmetic: FloatPrecision, cpus: tuple[int, ...]) -> int:
    """The peak of a process with one stream for each of the CPUs, in MiB."""
    # Pinned before the process imports anything that starts threads (NumPy, OpenVINO).
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=pinning.pin, initargs=(cpus,)) as pool:
        try:
            return pool.submit(_peak_here, variant, arithmetic, len(cpus)).result()
        except BrokenProcessPool as error:
            raise BundleError(
                f"the process that measured the memory of {variant.label} died; check the kernel's log for a lack of "
                "memory, or import it on a larger machine"
            ) from error


def _peak_here(variant: Variant, arithmetic: FloatPrecision, streams: int) -> int:
    engines: Any = importlib.import_module("worker.model.inference.engine")  # in the child process only
    logging.getLogger("worker").addHandler(logging.NullHandler())
    with engines.Engine.load(variant, streams=streams, threads=streams, inference_precision=arithmetic) as engine:
        engine.warm_up()
    return peak_memory_mib()
