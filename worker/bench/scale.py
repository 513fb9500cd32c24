"""`worker bench scale`: the rate on one core set, two, four, ... and all: what each further one adds.

Measures the inference ceiling and S3 to S3, each on a number of core sets at the same time. Redis and S3 server may use
all cores, so the first points profit from idle ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.inference_ceiling import InferenceCeiling
from worker.bench.harness.measure import OnProgress
from worker.bench.harness.system_under_test import JobRun, SystemUnderTest
from worker.bench.images import jpeg
from worker.bench.pipeline import even, of_network
from worker.bench.scale_report import SCHEMA_VERSION, Point, ScaleReport
from worker.contract.settings import PlanSettings, Settings
from worker.cpu import placement, topology
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant
from worker.node import tuned_plan


@dataclass(frozen=True)
class ScaleOptions:
    """What to measure."""

    seconds: float = 20.0
    """Duration of a turn of the ceiling and of a job at each point."""

    megapixels: float = 2.0


@dataclass(frozen=True)
class _Rates:
    """Images per second on a number of core sets."""

    sets: Sequence[CoreSet]
    bare: float
    s3: float


def run(
    options: ScaleOptions, config: Settings, variant: Variant, arithmetic: str, on_progress: OnProgress
) -> ScaleReport:
    """Measure on 1, 2, 4, ... and all core sets.

    Args:
        options: what to measure.
        config: settings of this node, except for Redis and S3: the benchmark starts its own.
        variant: the network.
        arithmetic: of its float part.
        on_progress: called with one line per step.

    Raises:
        SetupError: this machine cannot run the measurement.
    """
    machine = topology.read()
    sets = _units(machine, tuned_plan.with_memory(machine, config.plan, config.model))
    load_before = machine_facts.load_average()
    data, size = jpeg(None, options.megapixels)
    rates: list[_Rates] = []
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch:
        for count in counts(len(sets)):
            on_progress(f"{count} of {len(sets)} core sets")
            used, folder = sets[:count], Path(scratch) / f"sets-{count}"
            folder.mkdir()
            with InferenceCeiling(variant, arithmetic, used, Path(scratch)) as ceiling:
                bare = _bare_rate(options, ceiling)
            with SystemUnderTest(folder, of_network(variant, arithmetic, config) | _layout(used)) as system:
                job = _job(options, system, used, data, bare)
            rates.append(_Rates(used, bare, job.images / job.seconds))
    return ScaleReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "scale",
            "machine": machine_facts.facts(machine),
            "network": {"name": variant.name, "size": variant.size.as_json(), "precision": variant.precision},
            "arithmetic": arithmetic,
            "cores_per_set": len(sets[0].cpus),
            "picture": {"width": size[0], "height": size[1], "jpeg_bytes": len(data)},
            "load_average_before": load_before,
            "load_average_after": machine_facts.load_average(),
            "points": [_point(one, rates[0]) for one in rates],
        }
    )


def _point(rates: _Rates, first: _Rates) -> Point:
    """Return the rates with their efficiencies over the first point, which has one core set."""
    count = len(rates.sets)
    return {
        "core_sets": count,
        "cores": sum(len(cores.cpus) for cores in rates.sets),
        "bare_images_per_second": round(rates.bare, 4),
        "s3_images_per_second": round(rates.s3, 4),
        "bare_efficiency": round(rates.bare / first.bare / count, 4),
        "s3_efficiency": round(rates.s3 / first.s3 / count, 4),
    }


def counts(sets: int) -> list[int]:
    """Return the numbers of core sets to measure: 1, 2, 4, ... and all."""
    return sorted({*(1 << power for power in range(sets.bit_length()) if 1 << power <= sets), sets})


def _units(machine: topology.Topology, settings: PlanSettings) -> Sequence[CoreSet]:
    """Return the core sets of the plan or, where it has only one, that set cut into single cores."""
    plan = placement.plan(machine, settings)
    if len(plan.core_sets) > 1:
        return plan.core_sets
    single = {"processes": len(plan.core_sets[0].cpus), "streams": 1, "threads": 1}
    return placement.plan(machine, settings.model_copy(update=single)).core_sets


def _layout(sets: Sequence[CoreSet]) -> dict[str, str]:
    return {
        "MASKMILL_PLAN__PROCESSES": str(len(sets)),
        "MASKMILL_PLAN__STREAMS": str(sets[0].streams),
        "MASKMILL_PLAN__THREADS": str(sets[0].threads),
    }


def _bare_rate(options: ScaleOptions, ceiling: InferenceCeiling) -> float:
    """Return the images per second of the network alone, all core sets together."""
    first = ceiling.turn(2 * even(1, ceiling))
    each = first.images / first.wall_seconds / len(ceiling.core_sets)
    turn = ceiling.turn(even(options.seconds * each, ceiling))
    return turn.images / turn.wall_seconds


def _job(options: ScaleOptions, system: SystemUnderTest, sets: Sequence[CoreSet], data: bytes, rate: float) -> JobRun:
    system.start_workers(cpus=sorted(cpu for cores in sets for cpu in cores.cpus))
    system.wait_for_workers(len(sets))
    system.upload(data, max(4 * len(sets), round(options.seconds * rate)))
    return system.run_job()
