"""`worker bench pipeline`: the rate from S3 to S3 compared with the inference ceiling.

    ceiling, job, ceiling, job, ..., ceiling     never at the same time: while one runs, the other waits

Both run the same network on the same cores in the same run. The job is a whole one: submitted with `producer`, run by
`worker start`, timed from the start of its first chunk to the outcome of its last image, with Redis and the S3 server
on the same cores. The ceiling is the engine alone.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.inference_ceiling import InferenceCeiling
from worker.bench.harness.measure import OnProgress, TurnTiming
from worker.bench.harness.system_under_test import JobRun, SystemUnderTest
from worker.bench.harness.usage import Usage, model_processes
from worker.bench.images import jpeg
from worker.bench.pipeline_report import (
    SCHEMA_VERSION,
    CpuTimes,
    PipelineReport,
    RoundRow,
    StageTimes,
    StartUp,
    Summary,
)
from worker.contract.settings import PlanSettings, Settings
from worker.cpu import placement, topology
from worker.model.format.variant import Variant
from worker.node import tuned_plan
from worker.processes.memory import peak_bytes

PIXEL_STAGES = ("decode", "prepare", "render")
"""Stages of `worker.telemetry.timing` that process pixels, inference excluded."""

_MILLI = 1000.0
_MIB = 1024 * 1024
_WARM_UP_PARTS = 4
"""The warm-up job tells how many images a measured job needs. It has as many images as the network alone runs in this
fraction (1/4) of the time of a job."""
_TURN_PARTS = 2
"""A job lasts this many times as long as a turn of the ceiling, because a job has a beginning and an end that such a
turn has not."""


@dataclass(frozen=True)
class PipelineOptions:
    """What to measure."""

    seconds: float = 30.0
    """Duration of a job."""

    rounds: int = 3
    megapixels: float = 2.0
    photo: Path | None = None
    """A photograph to scale to that size; a generated picture by default."""
    start_up: bool = True
    """Also measure the time to the first image, cold and from the compiled model cache."""


@dataclass
class _Measured:
    """Turns of the ceiling and jobs in the order in which they ran: one turn more than jobs."""

    bare: list[TurnTiming] = field(default_factory=list)
    jobs: list[JobRun] = field(default_factory=list)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Wall and CPU seconds over all jobs."""

    bare_services: float = 0.0
    """CPU seconds of Redis and S3 server during the turns."""
    bare_seconds: float = 0.0
    """Wall seconds of the turns."""

    @property
    def idle_services(self) -> float:
        """CPU seconds that the services take per second without a job, and so during turns of the ceiling."""
        return self.bare_services / self.bare_seconds

    def served(self, job: JobRun) -> float:
        """Return the CPU seconds of the services that a job caused."""
        return max(0.0, job.usage.services - self.idle_services * job.seconds)

    def ratio(self, number: int, spare_seconds: float = 0.0) -> float:
        """Return the rate of a job over the mean of the turns around it; `spare_seconds` are taken off its time."""
        job = self.jobs[number]
        rate = job.images / (job.seconds - spare_seconds)
        return rate / statistics.mean(one.images / one.wall_seconds for one in self.bare[number : number + 2])


def run(
    options: PipelineOptions, config: Settings, variant: Variant, arithmetic: str, on_progress: OnProgress
) -> PipelineReport:
    """Measure start-up, then jobs and turns of the ceiling in alternation.

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
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
    cores = sum(len(core_set.cpus) for core_set in plan.core_sets)
    data, size = jpeg(options.photo, options.megapixels)
    environment = of_network(variant, arithmetic, config) | as_planned(tuned.plan)
    load_before = machine_facts.load_average()
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch:
        folder = Path(scratch)
        with SystemUnderTest(folder, environment) as system:
            start_up: StartUp = {}
            if options.start_up:
                start_up = _start_up(system, data, folder, on_progress)
            else:
                system.start_workers()
            system.wait_for_workers(len(plan.core_sets))
            with InferenceCeiling(variant, arithmetic, plan.core_sets, folder) as ceiling:
                measured = _measure(options, system, ceiling, data, on_progress)
            peaks = [peak_bytes(pid) / _MIB for pid in model_processes(system.supervisor or 0)]
    return PipelineReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "pipeline",
            "machine": machine_facts.facts(machine),
            "network": {"name": variant.name, "size": variant.size.as_json(), "precision": variant.precision},
            "arithmetic": arithmetic,
            "processes": len(plan.core_sets),
            "streams": sum(core_set.streams for core_set in plan.core_sets),
            "cores": cores,
            "picture": {"width": size[0], "height": size[1], "jpeg_bytes": len(data)},
            "load_average_before": load_before,
            "load_average_after": machine_facts.load_average(),
            "start_up": start_up,
            "peak_memory_mib": [round(peak) for peak in peaks],
            **_summary(measured, cores),
        }
    )


def of_network(variant: Variant, arithmetic: str, config: Settings) -> dict[str, str]:
    """Return settings that make workers run the network of the ceiling."""
    return {
        "MASKMILL_MODEL__SOURCE": config.model.source,
        "MASKMILL_MODEL__NAME": variant.name,
        "MASKMILL_MODEL__SIZE": str(variant.size),
        "MASKMILL_MODEL__PRECISION": variant.precision,
        "MASKMILL_MODEL__INFERENCE_PRECISION": arithmetic,
    }


def as_planned(settings: PlanSettings) -> dict[str, str]:
    """Return settings that make workers follow the plan of the ceiling.

    The workers' own cache is empty, so it holds no layout saved by `worker tune`.
    """
    found = settings.model_dump(exclude_none=True)
    return {f"MASKMILL_PLAN__{name.upper()}": str(value) for name, value in found.items()}


def _start_up(system: SystemUnderTest, data: bytes, folder: Path, on_progress: OnProgress) -> StartUp:
    """Measure the time from `worker start` to the first image, with an empty cache and again; leave workers running."""
    system.upload(data, 1)
    cache = {"MASKMILL_MODEL__CACHE_DIR": str(folder / "cache")}

    def seconds_to_first_image(state: str) -> float:
        on_progress(f"start-up, {state}")
        system.stop_workers()
        job = system.submit()
        began = time.monotonic()
        system.start_workers(cache)
        system.wait_for(job)
        return round(time.monotonic() - began, 2)

    cold = seconds_to_first_image("cold")
    return {"cold_seconds": cold, "cached_seconds": seconds_to_first_image("cached")}


def _measure(
    options: PipelineOptions, system: SystemUnderTest, ceiling: InferenceCeiling, data: bytes, on_progress: OnProgress
) -> _Measured:
    in_turn = _upload_pictures(options, system, ceiling, data, on_progress)
    before = system.stage_seconds()
    measured = _Measured()
    _ceiling_turn(system, ceiling, in_turn, measured)
    for number in range(options.rounds):
        label = f"round {number + 1} of {options.rounds}"
        job = system.run_job(on_progress=lambda line, label=label: on_progress(f"{label}: {line}"))  # type: ignore[misc]
        measured.jobs.append(job)
        _ceiling_turn(system, ceiling, in_turn, measured)
        on_progress(f"{label}: {measured.ratio(number):.3f} of the inference ceiling")
    measured.stages = {
        name: (wall - before.get(name, (0, 0))[0], cpu - before.get(name, (0, 0))[1])
        for name, (wall, cpu) in system.stage_seconds().items()
    }
    return measured


def _upload_pictures(
    options: PipelineOptions, system: SystemUnderTest, ceiling: InferenceCeiling, data: bytes, on_progress: OnProgress
) -> int:
    """Warm up, then upload as many pictures as a job of `options.seconds` needs.

    The warm-up job also tells the dispatcher how fast this node is.

    Returns:
        Images of a core set in a turn of the ceiling.
    """
    sets = len(ceiling.core_sets)
    first_images = 4 * (max(cores.streams for cores in ceiling.core_sets) + 1)
    bare_rate = first_images / ceiling.turn(first_images).wall_seconds
    few = even(options.seconds / _WARM_UP_PARTS * bare_rate, ceiling) * sets
    system.upload(data, few)
    warm = system.run_job(on_progress=lambda line: on_progress(f"warming up: {line}"))
    job_rate = warm.images / warm.seconds / sets
    images = max(few, even(options.seconds * job_rate, ceiling) * sets)
    on_progress(f"uploading {images - few} more pictures")
    system.upload(data, images, already=few)
    return even(options.seconds / _TURN_PARTS * bare_rate, ceiling)


def _ceiling_turn(system: SystemUnderTest, ceiling: InferenceCeiling, images: int, measured: _Measured) -> None:
    """Run a turn of the ceiling and note what the idle services took meanwhile."""
    began, services = time.monotonic(), system.usage().services
    measured.bare.append(ceiling.turn(images))
    measured.bare_services += system.usage().services - services
    measured.bare_seconds += time.monotonic() - began


def even(images: float, ceiling: InferenceCeiling) -> int:
    """Round up to a multiple of the streams (at least two), so that no stream is idle at the end of a turn."""
    streams = math.lcm(*(cores.streams for cores in ceiling.core_sets))
    return max(2, math.ceil(images / streams)) * streams


def _summary(measured: _Measured, cores: int) -> Summary:
    jobs, bare = measured.jobs, measured.bare
    ratios = [measured.ratio(number) for number in range(len(jobs))]
    apart = [measured.ratio(number, measured.served(job) / cores) for number, job in enumerate(jobs)]
    images = sum(job.images for job in jobs)
    stages: dict[str, StageTimes] = {
        name: {"wall_ms": round(wall / images * _MILLI, 2), "cpu_ms": round(cpu / images * _MILLI, 2)}
        for name, (wall, cpu) in measured.stages.items()
    }
    busy = [share for job in jobs if not math.isnan(share := job.busy(cores))]
    return {
        "rounds": [_round_row(job, bare[number : number + 2], ratios[number]) for number, job in enumerate(jobs)],
        "ratio": round(statistics.median(ratios), 4),
        "ratio_services_apart": round(statistics.median(apart), 4),
        "images_per_second": round(statistics.median(job.images / job.seconds for job in jobs), 4),
        "bare_images_per_second": round(statistics.median(b.images / b.wall_seconds for b in bare), 4),
        "busy": round(statistics.median(busy), 4) if busy else None,
        "stages": stages,
        "cpu": _cpu_times(measured, stages, images),
    }


def _round_row(job: JobRun, around: Sequence[TurnTiming], ratio: float) -> RoundRow:
    return {
        "images": job.images,
        "chunk_images": job.view.chunk_images,
        "seconds": round(job.seconds, 3),
        "images_per_second": round(job.images / job.seconds, 4),
        "bare_images_per_second": [round(one.images / one.wall_seconds, 4) for one in around],
        "ratio": round(ratio, 4),
    }


def _cpu_times(measured: _Measured, stages: Mapping[str, StageTimes], images: int) -> CpuTimes:
    jobs = measured.jobs
    spent = sum((job.usage for job in jobs), Usage())
    pixels = sum(stages[name]["cpu_ms"] for name in PIXEL_STAGES if name in stages)
    around = (spent.images + spent.rest) / images * _MILLI
    bare = statistics.median(one.cpu_seconds / one.images for one in measured.bare)
    return {
        "inference_ms": round(spent.inference / images * _MILLI, 2),
        "bare_ms": round(bare * _MILLI, 2),
        "pixels_ms": round(pixels, 2),
        "elsewhere_ms": round(around - pixels, 2),
        "services_ms": round(sum(map(measured.served, jobs)) / images * _MILLI, 2),
        "idle_services_ms": round(measured.idle_services * sum(job.seconds for job in jobs) / images * _MILLI, 2),
    }
