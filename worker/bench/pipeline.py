"""`worker bench pipeline`: from S3 to S3, against the bare limit of the same network on the same cores in the same run.

    bare, job, bare, job, ..., bare     never at the same time: while one works, the other waits

The job is a whole one: submitted with `producer`, run by `worker start`, from the start of its first chunk to the
outcome of its last image, with Redis and the S3 server on the same cores. The bare limit is the engine alone.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.inference_ceiling import Limit
from worker.bench.harness.measure import Sample
from worker.bench.harness.system_under_test import JobRun, Rig
from worker.bench.harness.usage import Usage, memory_mib, model_processes
from worker.bench.images import jpeg
from worker.contract.settings import PlanSettings, Settings
from worker.cpu import placement, topology
from worker.model.format.variant import Variant
from worker.node import tuned_plan

SCHEMA_VERSION = 1
PIXEL_STAGES = ("decode", "prepare", "render")
"""Of `worker.telemetry.timing`: what is done to pixels beside inference."""

_MILLI = 1000.0
_WARM_UP_PARTS = 4
"""The first job, whose rate tells how many images a measured one needs, is as long as this part of one would be at the
rate of the network alone, which is faster."""
_TURN_PARTS = 2
"""A job lasts so many times as long as a bare turn: it has a beginning and an end that a bare turn has not."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seconds: float = 30.0
    """Of a job."""

    rounds: int = 3
    megapixels: float = 2.0
    photo: Path | None = None
    start_up: bool = True
    """Also measure the time to the first image, cold and from the cache."""


def run(options: Options, config: Settings, variant: Variant, arithmetic: str, say: Say) -> dict[str, Any]:
    """Measure.

    Args:
        options: how.
        config: of this node; what it says of Redis and S3 is not used.
        variant: the network.
        arithmetic: of its float part.
        say: told what happens, one short line at a time.

    Returns:
        The report, ready for JSON: `rounds` with images per second, `ratio` (median of the job's rate over the mean of
        the bare rates before and after it), `ratio_services_apart` (the same less the core time that Redis and S3
        took on these cores beyond what they take, idle, beside a bare turn), `stages` and `cpu` in milliseconds per
        image, `busy`, `start_up`.

    Raises:
        SetupError: it cannot be measured here.
    """
    machine = topology.read()
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
    cores = sum(len(core_set.cpus) for core_set in plan.core_sets)
    data, size = jpeg(options.photo, options.megapixels)
    environment = of_network(variant, arithmetic, config) | as_planned(tuned.plan)
    load_before = machine_facts.load_average()
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch:
        folder = Path(scratch)
        with Rig(folder, environment) as rig:
            start_up = _start_up(rig, data, folder, say) if options.start_up else {}
            if not options.start_up:
                rig.start_workers()
            rig.wait_for_workers(len(plan.core_sets))
            with Limit(variant, arithmetic, plan.core_sets, folder) as limit:
                measured = _measure(options, rig, limit, data, say)
            memory = [memory_mib(pid)[1] for pid in model_processes(rig.supervisor or 0)]
    streams = sum(core_set.streams for core_set in plan.core_sets)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "pipeline",
        "machine": machine_facts.facts(machine),
        "network": {"name": variant.name, "size": variant.size.as_json(), "precision": variant.precision},
        "arithmetic": arithmetic,
        "processes": len(plan.core_sets),
        "streams": streams,
        "cores": cores,
        "picture": {"width": size[0], "height": size[1], "jpeg_bytes": len(data)},
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        "start_up": start_up,
        "peak_memory_mib": [round(peak) for peak in memory],
        **_summary(measured, cores),
    }


@dataclass(frozen=True)
class _Measured:
    """Bare turns and jobs in the order in which they ran: one bare turn more than jobs."""

    bare: Sequence[Sample]
    jobs: Sequence[JobRun]
    stages: dict[str, tuple[float, float]]
    """Wall and CPU seconds over all jobs."""

    idle_services: float
    """CPU seconds that Redis and the S3 server take in a second of a bare turn: it bears them as a job does."""

    def served(self, job: JobRun) -> float:
        """CPU seconds of the services that a job caused."""
        return max(0.0, job.usage.services - self.idle_services * job.seconds)


def of_network(variant: Variant, arithmetic: str, config: Settings) -> dict[str, str]:
    """The very network that the limit is measured with."""
    return {
        "MASKMILL_MODEL__SOURCE": config.model.source,
        "MASKMILL_MODEL__NAME": variant.name,
        "MASKMILL_MODEL__SIZE": variant.size.short,
        "MASKMILL_MODEL__PRECISION": variant.precision,
        "MASKMILL_MODEL__INFERENCE_PRECISION": arithmetic,
    }


def as_planned(settings: PlanSettings) -> dict[str, str]:
    """The very plan that the limit is measured with: the workers' own cache holds no record of `worker tune`."""
    found = settings.model_dump(exclude_none=True)
    return {f"MASKMILL_PLAN__{name.upper()}": str(value) for name, value in found.items()}


def _start_up(rig: Rig, data: bytes, folder: Path, say: Say) -> dict[str, float]:
    """Seconds from `worker start` to the first image done: without anything cached, then again. Workers go on."""
    rig.upload(data, 1)
    found = {}
    cache = {"MASKMILL_MODEL__CACHE_DIR": str(folder / "cache")}
    for name in ("cold", "cached"):
        say(f"start-up, {name}")
        rig.stop_workers()
        job = rig.submit()
        began = time.monotonic()
        rig.start_workers(cache)
        rig.wait_for(job)
        found[f"{name}_seconds"] = round(time.monotonic() - began, 2)
    return found


def _measure(options: Options, rig: Rig, limit: Limit, data: bytes, say: Say) -> _Measured:
    requests = max(cores.streams for cores in limit.core_sets) + 1
    first = limit.turn(4 * requests)
    bare_rate = 4 * requests / first.wall_seconds
    each = even(options.seconds / _TURN_PARTS * bare_rate, limit)
    few = even(options.seconds / _WARM_UP_PARTS * bare_rate, limit) * len(limit.core_sets)
    rig.upload(data, few)
    # Also tells the engine how fast this node is.
    warm = rig.run_job(say=lambda line: say(f"warming up: {line}"))
    share = warm.images / warm.seconds / len(limit.core_sets)
    images = max(few, even(options.seconds * share, limit) * len(limit.core_sets))
    say(f"uploading {images - few} more pictures")
    rig.upload(data, images, already=few)
    before = rig.stage_seconds()
    services, elapsed = 0.0, 0.0

    def turn() -> Sample:
        nonlocal services, elapsed
        began, spent = time.monotonic(), rig.usage().services
        sample = limit.turn(each)
        services, elapsed = services + rig.usage().services - spent, elapsed + time.monotonic() - began
        return sample

    bare, jobs = [turn()], []
    for number in range(options.rounds):
        label = f"round {number + 1} of {options.rounds}"
        jobs.append(rig.run_job(say=lambda line, label=label: say(f"{label}: {line}")))  # type: ignore[misc]
        bare.append(turn())
        say(f"{label}: {_ratio(bare, jobs, number):.3f} of the bare limit")
    after = rig.stage_seconds()
    stages = {
        name: (wall - before.get(name, (0, 0))[0], cpu - before.get(name, (0, 0))[1])
        for name, (wall, cpu) in after.items()
    }
    return _Measured(bare, jobs, stages, services / elapsed)


def even(images: float, limit: Limit) -> int:
    """A multiple of the streams, so that none idles at the end."""
    streams = math.lcm(*(cores.streams for cores in limit.core_sets))
    return max(2, math.ceil(images / streams)) * streams


def _ratio(bare: Sequence[Sample], jobs: Sequence[JobRun], number: int, spare_seconds: float = 0.0) -> float:
    """Rate of a job over the mean of the bare rates around it; `spare_seconds` are taken off the job's time."""
    job = jobs[number]
    around = [bare[number], bare[number + 1]]
    rate = job.images / (job.seconds - spare_seconds)
    return rate / statistics.mean(one.images / one.wall_seconds for one in around)


def _summary(measured: _Measured, cores: int) -> dict[str, Any]:
    jobs, bare = measured.jobs, measured.bare
    ratios = [_ratio(bare, jobs, number) for number in range(len(jobs))]
    apart = [_ratio(bare, jobs, n, measured.served(job) / cores) for n, job in enumerate(jobs)]
    images = sum(job.images for job in jobs)
    spent = sum((job.usage for job in jobs), Usage())
    stages = {
        name: {"wall_ms": round(wall / images * _MILLI, 2), "cpu_ms": round(cpu / images * _MILLI, 2)}
        for name, (wall, cpu) in measured.stages.items()
    }
    pixels = sum(stages[name]["cpu_ms"] for name in PIXEL_STAGES if name in stages)
    around = (spent.images + spent.rest) / images * _MILLI
    busy = [share for job in jobs if not math.isnan(share := job.busy(cores))]
    return {
        "rounds": [
            {
                "images": job.images,
                "chunk_images": job.view.chunk_images,
                "seconds": round(job.seconds, 3),
                "images_per_second": round(job.images / job.seconds, 4),
                "bare_images_per_second": [round(b.images / b.wall_seconds, 4) for b in bare[number : number + 2]],
                "ratio": round(ratios[number], 4),
            }
            for number, job in enumerate(jobs)
        ],
        "ratio": round(statistics.median(ratios), 4),
        "ratio_services_apart": round(statistics.median(apart), 4),
        "images_per_second": round(statistics.median(job.images / job.seconds for job in jobs), 4),
        "bare_images_per_second": round(statistics.median(b.images / b.wall_seconds for b in bare), 4),
        "busy": round(statistics.median(busy), 4) if busy else None,
        "stages": stages,
        "cpu": {
            "inference_ms": round(spent.inference / images * _MILLI, 2),
            "bare_ms": round(statistics.median(b.cpu_seconds / b.images for b in bare) * _MILLI, 2),
            "pixels_ms": round(pixels, 2),
            "elsewhere_ms": round(around - pixels, 2),
            "services_ms": round(sum(map(measured.served, jobs)) / images * _MILLI, 2),
            "idle_services_ms": round(measured.idle_services * sum(job.seconds for job in jobs) / images * _MILLI, 2),
        },
    }
