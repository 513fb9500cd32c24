"""`worker bench model`: BiRefNet-lite without rewrites, ours in each precision, and other runtimes, side by side.

For each size, the networks are prepared; then, in each layout (one stream on all cores, and the streams of the plan),
all contenders take turns. For every turn a contender loads its network in a new process. Everything runs on the first
core set of the plan.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import cast

from worker.bench.benchmark_app import BenchmarkApp
from worker.bench.contenders import Contender, contenders, variants
from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress, TurnTiming, take_turns
from worker.bench.harness.process import Contestant, once
from worker.bench.harness.requests import NetworkRequest, PreparedFiles, PrepareRequest
from worker.bench.model_report import (
    SCHEMA_VERSION,
    LayoutResult,
    ModelReport,
    NodeType,
    NotRun,
    TimedContender,
    compare,
)
from worker.contract.errors import SettingsError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import PlanSettings
from worker.cpu import isa, placement, topology
from worker.cpu.pinning import refuse_forbidden_variables
from worker.cpu.placement import CoreSet
from worker.kernels import library
from worker.model.format.layout import MANIFEST_NAME
from worker.model.format.manifest import read_bundle_manifest, sha256_of

MIN_ROUNDS = 2
QUICK_ROUNDS = 2
_MIN_IMAGES = 4
"""Images of a turn at least, so that filling and draining the streams weighs little."""

TurnTaker = Contestant | BenchmarkApp


@dataclass(frozen=True)
class ModelOptions:
    """What to compare."""

    sizes: tuple[InputSize, ...]
    rounds: int
    quick: bool = False
    """Measure one stream on all cores only, and no profile."""

    checkpoint: Path | None = None
    bundle: Path | None = None


@dataclass
class _LayoutRun:
    """One size in one layout while it is measured."""

    size: InputSize
    streams: int
    core_set: CoreSet
    prepared: PreparedFiles
    folder: Path
    on_progress: OnProgress
    takers: dict[str, TurnTaker] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)

    @property
    def layout(self) -> str:
        """Streams x threads per stream."""
        return f"{self.streams} x {self.core_set.threads // self.streams}"


def run(options: ModelOptions, plan: PlanSettings, on_progress: OnProgress) -> ModelReport:
    """Compare all contenders in every size and layout.

    Args:
        options: what to compare.
        plan: streams and threads set by hand take precedence, as for workers.
        on_progress: called with one line per step.

    Raises:
        SettingsError: too few rounds, or a bundle without the checkpoint it was converted from.
        SetupError: this machine cannot run the measurement; a contender that cannot run is listed in `not_run`
            instead.
    """
    if options.rounds < MIN_ROUNDS:
        raise SettingsError(f"{options.rounds} rounds: at least {MIN_ROUNDS} are needed to tell noise from speed")
    refuse_forbidden_variables(os.environ)
    _check_weights(options)
    machine = topology.read()
    core_set = placement.plan(machine, plan).core_sets[0]
    arithmetic = isa.recommend(machine.flags, machine.memory_bytes).inference_precision
    results: list[LayoutResult] = []
    profiles: dict[str, dict[str, list[NodeType]]] = {}
    weights = ""
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
        for size in options.sizes:
            on_progress(f"{size.short}: building the networks")
            prepared = _prepare(options, size, core_set, Path(folder))
            weights = prepared["weights"]
            rows = _contenders(options, prepared, size, arithmetic)
            for streams in _layouts(core_set, options.quick):
                layout = _LayoutRun(size, streams, core_set, prepared, Path(folder), on_progress)
                results.append(_measure(layout, rows, options.rounds))
            if not options.quick:
                profiles[size.short] = dict(_profiles(rows, prepared, core_set, Path(folder), on_progress))
    return ModelReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "model",
            "machine": machine_facts.facts(machine),
            "weights": weights,
            "picture": "generated, the same for all contenders",
            "bundle": str(options.bundle) if options.bundle else None,
            "float_arithmetic": arithmetic,
            "results": results,
            "profiles": profiles,
        }
    )


def _prepare(options: ModelOptions, size: InputSize, core_set: CoreSet, folder: Path) -> PreparedFiles:
    request: PrepareRequest = {
        "job": "prepare",
        "cpus": core_set.cpus,
        "size": size.as_json(),
        "checkpoint": None if options.checkpoint is None else str(options.checkpoint.absolute()),
        "folder": str(folder),
        "build_ours": options.bundle is None,
    }
    return cast(PreparedFiles, once(request, folder / "prepare.log"))


def _check_weights(options: ModelOptions) -> None:
    """Refuse to compare networks with different weights, which decide how scattered the deformable sampling is.

    Raises:
        SettingsError: a bundle without its checkpoint, or with another one.
    """
    if options.bundle is None:
        return
    if options.checkpoint is None:
        raise SettingsError(
            f"the plain network is built with the weights of {options.bundle}: give the checkpoint that it was "
            "converted from with --checkpoint"
        )
    stated, given = _stated_source(options.bundle), sha256_of(options.checkpoint)
    if stated and stated != given:
        raise SettingsError(
            f"{options.bundle} was converted from a checkpoint with sha256 {stated}, {options.checkpoint} has {given}; "
            "give that one with --checkpoint"
        )


def _stated_source(bundle: Path) -> str | None:
    """Return the digest of the checkpoint from the bundle manifest; None if it is not stated."""
    manifest = bundle / MANIFEST_NAME
    source = read_bundle_manifest(manifest).source if manifest.exists() else None
    return source.sha256 if source else None


def _contenders(options: ModelOptions, prepared: PreparedFiles, size: InputSize, arithmetic: str) -> list[Contender]:
    plain = variants(Path(prepared["plain"]), size)[0]
    native = isinstance(library.find(metadata.version("openvino")), library.Library)
    ours = variants(options.bundle or Path(prepared["ours"] or ""), size)
    return contenders(plain, ours, arithmetic, native=native)


def _layouts(core_set: CoreSet, quick: bool) -> list[int]:
    """Return the numbers of streams to measure: one, and that of the plan."""
    return [1] if quick else sorted({1, core_set.streams})


def _measure(run: _LayoutRun, rows: Sequence[Contender], rounds: int) -> LayoutResult:
    """Let all contenders take turns in one size and layout."""
    load_before = machine_facts.load_average()
    by_label = {row.label: row for row in rows}
    for row in rows:
        taker = _turn_taker(run, row)
        if taker is not None:
            run.takers[row.label] = taker
    timings = take_turns(
        run.takers,
        rounds,
        on_turn=lambda number, name: run.on_progress(
            f"{run.size.short}, {run.layout}: round {number} of {rounds}, {name}"
        ),
        on_failure=lambda name, error: _note_failure(run, by_label[name], error),
    )
    timed = [_timed(by_label[label], run.takers[label], taken) for label, taken in timings.items()]
    threads = run.core_set.threads
    return {
        "size": run.size.as_json(),
        "streams": run.streams,
        "threads": threads,
        "cpus": list(run.core_set.cpus),
        "rounds": rounds,
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        **compare(timed, run.not_run, threads),
    }


def _note_failure(run: _LayoutRun, row: Contender, error: SetupError) -> None:
    """Continue without this contender; without the plain network there is nothing to compare with, so raise."""
    if row.role == "plain" and row.arithmetic == "f32":
        raise error
    run.not_run.append({"label": row.label, "reason": str(error)})


def _timed(row: Contender, taker: TurnTaker, timings: list[TurnTiming]) -> TimedContender:
    return TimedContender(
        label=row.label,
        engine=row.job,
        role=row.role,
        precision=row.variant.precision if row.variant else "fp32",
        arithmetic=row.arithmetic,
        timings=timings,
        peak_memory_bytes=taker.peak_memory_bytes,
        facts=taker.facts,
    )


def _turn_taker(run: _LayoutRun, row: Contender) -> TurnTaker | None:
    """Return a contender that can take turns; if it cannot, note the reason and return None."""
    try:
        if absent := machine_facts.missing(*row.needs):
            raise SetupError(f"not installed: {', '.join(absent)}")
        request = row.request()
        request["cpus"] = run.core_set.cpus
        request["streams"] = run.streams
        request["threads"] = run.core_set.threads
        request["checkpoint"] = run.prepared["checkpoint"]
        request["image"] = run.prepared["image"]
        request["normalised"] = run.prepared["normalised"]
        log = run.folder / f"{row.job}.log"
        if row.job == "benchmark_app":
            return BenchmarkApp(request, images=images_of_turn(run.streams), log=log)
        if row.job == "onnxruntime":
            request["onnx"] = _onnx(run, request)
        images = images_of_turn(run.streams) if row.job == "openvino" else run.streams
        return Contestant(request, images=images, log=log)
    except SetupError as error:
        run.not_run.append({"label": row.label, "reason": str(error)})
        return None


def images_of_turn(streams: int) -> int:
    """Return a multiple of the streams, so that none idles at the end, and of the requests, for benchmark_app."""
    least = streams * (streams + 1)
    return least * -(-_MIN_IMAGES // least)


def _onnx(run: _LayoutRun, request: NetworkRequest) -> str:
    """Return the file of the exported network, written once for each size."""
    file = run.folder / f"twin_{run.size.short}.onnx"
    if not file.exists():
        once(request | {"job": "export", "onnx": str(file)}, run.folder / "export.log")
    return str(file)


def _profiles(
    rows: Sequence[Contender], prepared: PreparedFiles, core_set: CoreSet, folder: Path, on_progress: OnProgress
) -> Iterator[tuple[str, list[NodeType]]]:
    """Yield label and node types of each network that OpenVINO runs, on all cores in one stream."""
    for row in rows:
        if row.job == "openvino":
            on_progress(f"profile of {row.label}")
            request = row.request()
            request["job"] = "profile"
            request["cpus"] = core_set.cpus
            request["threads"] = core_set.threads
            request["image"] = prepared["image"]
            yield row.label, once(request, folder / "profile.log")["node_types"]
