"""`worker bench model`: BiRefNet-lite without rewrites, ours in each precision, and other runtimes, side by side.

For each size: files are prepared, then for each layout (one stream on all cores, and the plan's streams) every
contender takes turns, for each of which it loads anew in a process of its own. Everything runs on the first core set of
the plan.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from worker.bench.benchmark_app import BenchmarkApp
from worker.bench.contenders import Contender, contenders, variants
from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import Sample, take_turns
from worker.bench.harness.process import Contestant, once
from worker.bench.report import SCHEMA_VERSION, Measured, NotRun, result
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
_FEW_IMAGES = 4
"""Images of one turn at least, so that filling and draining the streams weighs little."""

Runner = Contestant | BenchmarkApp
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to compare."""

    sizes: tuple[InputSize, ...]
    rounds: int
    quick: bool = False
    """Two rounds, one stream on all cores, no profile: does it work, roughly how fast."""

    checkpoint: Path | None = None
    bundle: Path | None = None


@dataclass
class _Run:
    """One size in one layout, as it goes."""

    size: InputSize
    streams: int
    core_set: CoreSet
    prepared: dict[str, Any]
    folder: Path
    say: Say
    images: int = 1
    runners: dict[str, Runner] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)

    @property
    def layout(self) -> str:
        """In words."""
        return f"{self.streams} x {self.core_set.threads // self.streams}"


def run(options: Options, plan: PlanSettings, say: Say) -> dict[str, Any]:
    """Measure.

    Args:
        options: what to compare.
        plan: streams and threads set by hand win, as for workers.
        say: told what happens, one short line at a time.

    Returns:
        The report, ready for JSON; see `report`.

    Raises:
        SetupError: nothing can be measured here; one contender that cannot run is listed in `not_run` instead.
    """
    if options.rounds < MIN_ROUNDS:
        raise SettingsError(f"{options.rounds} rounds: at least {MIN_ROUNDS} are needed to tell noise from speed")
    refuse_forbidden_variables(os.environ)
    _check_weights(options)
    machine = topology.read()
    core_set = placement.plan(machine, plan).core_sets[0]
    arithmetic = isa.recommend(machine.flags, machine.memory_bytes).inference_precision
    results, weights, profiles = [], "", {}
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder:
        for size in options.sizes:
            say(f"{size.short}: building the networks")
            prepared = _prepare(options, size, core_set, Path(folder))
            weights = prepared["weights"]
            rows = _rows(options, prepared, size, arithmetic)
            for streams in _layouts(core_set, options.quick):
                one = _Run(size, streams, core_set, prepared, Path(folder), say)
                results.append(_compare(one, rows, options.rounds))
            if not options.quick:
                profiles[size.short] = dict(_profiles(rows, prepared, core_set, Path(folder), say))
    return {
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


def _prepare(options: Options, size: InputSize, core_set: CoreSet, folder: Path) -> dict[str, Any]:
    request = {
        "job": "prepare",
        "cpus": core_set.cpus,
        "size": str(size),
        "checkpoint": _text(options.checkpoint),
        "folder": str(folder),
        "build_ours": options.bundle is None,
    }
    return once(request, folder / "prepare.log") | {"checkpoint": request["checkpoint"]}


def _check_weights(options: Options) -> None:
    """Rewrites are compared on the same weights, or not at all: they decide how scattered the sampling is.

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
    """Digest of the checkpoint, from the manifest; None where there is no manifest, or one that does not say."""
    manifest = bundle / MANIFEST_NAME
    source = read_bundle_manifest(manifest).source if manifest.exists() else None
    return source.sha256 if source else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _rows(options: Options, prepared: dict[str, Any], size: InputSize, arithmetic: str) -> list[Contender]:
    plain = variants(Path(prepared["plain"]), size)[0]
    native = isinstance(library.find(metadata.version("openvino")), library.Library)
    ours = variants(options.bundle or Path(prepared["ours"]), size)
    return contenders(plain, ours, arithmetic, native=native)


def _layouts(core_set: CoreSet, quick: bool) -> list[int]:
    """Streams to measure: one, and those of the plan."""
    return [1] if quick else sorted({1, core_set.streams})


def _compare(run: _Run, rows: Sequence[Contender], rounds: int) -> dict[str, Any]:
    """All contenders of one size in one layout."""
    load_before = machine_facts.load_average()
    by_label = {row.label: row for row in rows}
    for row in rows:
        runner = _runner(run, row)
        if runner is not None:
            run.runners[row.label] = runner
    samples = take_turns(
        run.runners,
        rounds,
        say=lambda number, name: run.say(f"{run.size.short}, {run.layout}: round {number} of {rounds}, {name}"),
        fail=lambda name, error: _note_failure(run, by_label[name], error),
    )
    measured = [_measured(by_label[label], run.runners[label], taken) for label, taken in samples.items()]
    threads = run.core_set.threads
    head = {
        "size": run.size.as_json(),
        "streams": run.streams,
        "threads": threads,
        "cpus": list(run.core_set.cpus),
        "rounds": rounds,
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
    }
    return head | result(measured, run.not_run, threads)


def _note_failure(run: _Run, row: Contender, error: SetupError) -> None:
    """One contender less; without the network that all are compared with, nothing is left to measure."""
    if row.role == "plain" and row.arithmetic == "f32":
        raise error
    run.not_run.append(NotRun(row.label, str(error)))


def _measured(row: Contender, runner: Runner, samples: list[Sample]) -> Measured:
    return Measured(
        label=row.label,
        engine=row.job,
        role=row.role,
        precision=row.variant.precision if row.variant else "fp32",
        arithmetic=row.arithmetic,
        samples=samples,
        peak_memory_bytes=runner.peak_memory_bytes,
        facts=runner.facts,
    )


def _runner(run: _Run, row: Contender) -> Runner | None:
    """A contender that can take turns, or None with the reason noted."""
    try:
        if absent := machine_facts.missing(*row.needs):
            raise SetupError(f"not installed: {', '.join(absent)}")
        request = row.request() | {
            "cpus": run.core_set.cpus,
            "streams": run.streams,
            "threads": run.core_set.threads,
            "checkpoint": run.prepared["checkpoint"],
            "image": run.prepared["image"],
            "normalised": run.prepared["normalised"],
        }
        log = run.folder / f"{row.job}.log"
        if row.job == "benchmark_app":
            return BenchmarkApp(request, images=images_of_turn(run.streams), log=log)
        if row.job == "onnxruntime":
            request["onnx"] = _onnx(run, request)
        images = images_of_turn(run.streams) if row.job == "openvino" else run.streams
        return Contestant(request, images=images, log=log)
    except SetupError as error:
        run.not_run.append(NotRun(row.label, str(error)))
        return None


def images_of_turn(streams: int) -> int:
    """A multiple of the streams, so that none idles at the end, and of the requests, as benchmark_app demands."""
    least = streams * (streams + 1)
    return least * -(-_FEW_IMAGES // least)


def _onnx(run: _Run, request: dict[str, Any]) -> str:
    """The exported network, made once for each size."""
    file = run.folder / f"twin_{run.size}.onnx"
    if not file.exists():
        once(request | {"job": "export", "onnx": str(file)}, run.folder / "export.log")
    return str(file)


def _profiles(
    rows: Sequence[Contender], prepared: dict[str, Any], core_set: CoreSet, folder: Path, say: Say
) -> Iterator[tuple[str, Any]]:
    """Where the time goes in each network that OpenVINO runs, on all cores in one stream."""
    for row in rows:
        if row.job == "openvino":
            say(f"profile of {row.label}")
            request = row.request() | {"job": "profile", "cpus": core_set.cpus, "threads": core_set.threads}
            yield row.label, once(request | {"image": prepared["image"]}, folder / "profile.log")["node_types"]
