"""`worker bench scale`: one core set, two, four, ... all of them: what the last one adds.

Bare limit and S3 to S3, each on so many core sets at the same time. Efficiency is the rate over that of one core set,
times their number. Redis and S3 run on all cores, so that the first points profit from idle ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.inference_ceiling import Limit
from worker.bench.harness.system_under_test import JobRun, Rig
from worker.bench.images import jpeg
from worker.bench.pipeline import even, of_network
from worker.contract.settings import PlanSettings, Settings
from worker.cpu import placement, topology
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant
from worker.node import tuned_plan

SCHEMA_VERSION = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seconds: float = 20.0
    """Of a bare turn and of a job at each point."""

    megapixels: float = 2.0


def run(options: Options, config: Settings, variant: Variant, arithmetic: str, say: Say) -> dict[str, Any]:
    """Measure.

    Returns:
        The report, ready for JSON: `points`, each with `core_sets`, `cores`, rates and efficiencies.

    Raises:
        SetupError: it cannot be measured here.
    """
    machine = topology.read()
    sets = _units(machine, tuned_plan.with_memory(machine, config.plan, config.model))
    load_before = machine_facts.load_average()
    data, size = jpeg(None, options.megapixels)
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch:
        for count in counts(len(sets)):
            say(f"{count} of {len(sets)} core sets")
            with Limit(variant, arithmetic, sets[:count], Path(scratch)) as limit:
                bare = _bare(options, limit)
            place = Path(scratch) / f"sets-{count}"
            place.mkdir()
            with Rig(place, of_network(variant, arithmetic, config) | _layout(sets[:count])) as rig:
                job = _job(options, rig, sets[:count], data, bare)
            points.append(
                {
                    "core_sets": count,
                    "cores": sum(len(cores.cpus) for cores in sets[:count]),
                    "bare_images_per_second": round(bare, 4),
                    "s3_images_per_second": round(job.images / job.seconds, 4),
                }
            )
    for point in points:
        for kind in ("bare", "s3"):
            one = points[0][f"{kind}_images_per_second"]
            point[f"{kind}_efficiency"] = round(point[f"{kind}_images_per_second"] / one / point["core_sets"], 4)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "scale",
        "machine": machine_facts.facts(machine),
        "network": {"name": variant.name, "size": variant.size.as_json(), "precision": variant.precision},
        "arithmetic": arithmetic,
        "cores_per_set": len(sets[0].cpus),
        "picture": {"width": size[0], "height": size[1], "jpeg_bytes": len(data)},
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        "points": points,
    }


def counts(sets: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return sorted({*(1 << power for power in range(sets.bit_length()) if 1 << power <= sets), sets})


def _units(machine: topology.Topology, settings: PlanSettings) -> Sequence[CoreSet]:
    """The core sets of the plan; where there is only one, its single cores."""
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


def _bare(options: Options, limit: Limit) -> float:
    """Images per second of all core sets together."""
    first = limit.turn(2 * even(1, limit))
    each = first.images / first.wall_seconds / len(limit.core_sets)
    turn = limit.turn(even(options.seconds * each, limit))
    return turn.images / turn.wall_seconds


def _job(options: Options, rig: Rig, sets: Sequence[CoreSet], data: bytes, rate: float) -> JobRun:
    rig.start_workers(cpus=sorted(cpu for cores in sets for cpu in cores.cpus))
    rig.wait_for_workers(len(sets))
    rig.upload(data, max(4 * len(sets), round(options.seconds * rate)))
    return rig.run_job()
