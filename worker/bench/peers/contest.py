"""Let maskmill and its peers cut out the same pictures with the same weights, in turns.

    maskmill                  S3 to S3: a whole job with Redis and an S3 server on the same CPUs, cut-outs as PNG
    rembg p                   folder to folder
    OpenVINO, ONNX Runtime    a plain loop over the folder, as a script would have it
    PyTorch                   the same loop, eager and compiled; on request

All have the same CPUs, and one runs at a time. Start-up and the loading of the network are taken off for all of them.
The alpha channels of the cut-outs are compared with maskmill's, so that no one wins by other masks.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.bench.harness import machine as machine_facts
from worker.bench.harness import peer_environment
from worker.bench.harness.measure import OnProgress, TurnTiming, paired_speedup, rotated
from worker.bench.harness.process import tail
from worker.bench.harness.system_under_test import SOURCE, JobRun, SystemUnderTest
from worker.bench.harness.usage import model_processes
from worker.bench.peers import pictures, rembg_folder
from worker.bench.peers.report import SCHEMA_VERSION, AgreementRow, PeerRow, PeersReport
from worker.bench.pipeline import as_planned, of_network
from worker.bench.quality import rembg
from worker.bench.quality.rembg import RembgNetwork
from worker.contract.errors import SetupError
from worker.contract.settings import Settings
from worker.cpu import placement, topology
from worker.cpu.kernel import format_cpu_list
from worker.model.format.variant import Variant
from worker.model.inference.facts import InputScaling, NetworkFacts, OutputActivation, OutputStretch, read_facts
from worker.model.inference.runtime import core, version
from worker.node import tuned_plan
from worker.processes.memory import peak_bytes

OURS, REMBG = "maskmill", "rembg p"
SCRIPTS = {"script, OpenVINO": "openvino", "script, ONNX Runtime": "onnxruntime"}
PYTORCH_SCRIPTS = {"script, PyTorch eager": "pytorch", "script, PyTorch compiled": "pytorch-compiled"}
"""Scripts, and the engine of each (see `script.ENGINES`)."""

PYTORCH = ("torch==2.13.0", "onnx==1.23.2", "numpy==2.4.6", "pillow==13.0.0")
"""Packages of PyTorch's environment."""

SCRIPT = Path(__file__).with_name("script.py")
_SHORT = 4
"""Pictures of rembg's short run; see `rembg_folder`."""
_TIMEOUT_SECONDS = 3600
_HALF = 128
_MIB = 2**20
_LARGEST_BYTES = 2**28

Alpha = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PeersOptions:
    """What to measure."""

    rembg: RembgNetwork
    """The ONNX file of the network in the settings, and rembg's name of it."""
    output_name: str = ""
    """Output of the ONNX file that holds the mask; empty for the first."""
    images: int = 24
    rounds: int = 3
    megapixels: float = 2.0
    pytorch: bool = False
    """Whether PyTorch takes part."""

    @property
    def scripts(self) -> Mapping[str, str]:
        """Name of each script that takes part -> its engine."""
        return SCRIPTS | PYTORCH_SCRIPTS if self.pytorch else SCRIPTS


@dataclass(frozen=True)
class OurNetwork:
    """What maskmill runs."""

    config: Settings
    """Settings of this node, except for Redis and S3: the benchmark starts its own."""
    variant: Variant
    arithmetic: str
    """Of the float part."""


@dataclass
class _Contest:
    """What all contestants have found so far."""

    timings: dict[str, list[TurnTiming]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    """MiB."""
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, timing: TurnTiming, peak_mib: int) -> None:
        self.timings.setdefault(name, []).append(timing)
        self.peaks[name] = max(self.peaks.get(name, 0), peak_mib)


def run(options: PeersOptions, ours: OurNetwork, on_progress: OnProgress, scratch: Path) -> PeersReport:
    """Run the contest.

    Args:
        options: what to measure.
        ours: maskmill's network and settings.
        on_progress: called with one line per step.
        scratch: an empty folder.

    Raises:
        SetupError: a contestant cannot run.
        StandaloneError: the photographs are not installed.
    """
    config, variant, arithmetic = ours.config, ours.variant, ours.arithmetic
    cache = config.model.cache_dir.expanduser() / "environments"
    on_progress(f"environment of {rembg.REQUIREMENT}")
    rembg.interpreter(cache)
    if options.pytorch:
        on_progress(f"environment of {PYTORCH[0]}")
        _pytorch_interpreter(cache)
    paths, size = pictures.write(scratch / "pictures", options.images, options.megapixels)
    short = scratch / "few"
    short.mkdir()
    for path in paths[:_SHORT]:
        (short / path.name).hardlink_to(path)
    machine = topology.read()
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
    cpus = tuple(sorted({cpu for core_set in plan.core_sets for cpu in core_set.cpus}))
    load_before = machine_facts.load_average()
    environment = of_network(variant, arithmetic, config) | as_planned(tuned.plan)
    facts = read_facts(core().read_model(str(variant.xml)), variant.label)
    with SystemUnderTest(scratch / "system", environment) as system:
        arena = _Arena(options, system, facts, variant, cpus, cache, scratch, paths)
        arena.open(len(plan.core_sets))
        contest = arena.fight(on_progress)
        agreement = arena.compare()
    return PeersReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "peers",
            "machine": machine_facts.facts(machine),
            "network": {"name": variant.name, "size": variant.size.as_json(), "precision": variant.precision},
            "arithmetic": arithmetic,
            "cores": len(cpus),
            "images": len(paths),
            "rounds": options.rounds,
            "picture": {"width": size[0], "height": size[1], "jpeg_bytes": round(_mean_bytes(paths))},
            "load_average_before": load_before,
            "load_average_after": machine_facts.load_average(),
            "peers": _rows(contest),
            "agreement": agreement,
        }
    )


@dataclass(frozen=True)
class _Arena:
    """The contestants, ready to take turns."""

    options: PeersOptions
    system: SystemUnderTest
    facts: NetworkFacts
    variant: Variant
    cpus: tuple[int, ...]
    cache: Path
    """Folder of the environments."""
    scratch: Path
    paths: Sequence[Path]

    def open(self, processes: int) -> None:
        """Upload the pictures, start the workers, and run one job that is not measured."""
        for path in self.paths:
            self.system.store.put(SOURCE / path.name, path.read_bytes(), content_type="image/jpeg")
        self.system.start_workers(cpus=self.cpus)
        self.system.wait_for_workers(processes)
        self.system.run_job("--output", "cutout")

    def fight(self, on_progress: OnProgress) -> _Contest:
        """Let all contestants take their turns."""
        names = (OURS, REMBG, *self.options.scripts)
        contest = _Contest({name: [] for name in names}, versions={OURS: f"OpenVINO {version()}"})
        for number in range(self.options.rounds):
            for name in rotated(list(contest.timings), number):
                on_progress(f"round {number + 1} of {self.options.rounds}: {name}")
                self._turn(name, number, contest, on_progress)
        return contest

    def _turn(self, name: str, number: int, contest: _Contest, on_progress: OnProgress) -> None:
        if name == OURS:
            self._ours(contest)
        elif name == REMBG:
            self._rembg(number, contest, on_progress)
        else:
            self._script(name, contest)

    def _ours(self, contest: _Contest) -> None:
        job = self.system.run_job("--output", "cutout")
        for key, path in self._results(job).items():
            path.write_bytes(self.system.store.get(job.view.options.dest / key, max_bytes=_LARGEST_BYTES)[0])
        peaks = [peak_bytes(pid) for pid in model_processes(self.system.supervisor or 0)]
        contest.add(OURS, TurnTiming(job.images, job.seconds, job.usage.total), sum(peaks) // _MIB)

    def _results(self, job: JobRun) -> Mapping[str, Path]:
        """Key of each cut-out below the destination -> where it is written."""
        folder = self.scratch / "cut-outs" / OURS
        folder.mkdir(parents=True, exist_ok=True)
        dest = job.view.options.dest
        keys = [entry.key for entry in self.system.store.list(dest)]
        return {key: folder / f"{Path(key).stem.split('.')[0]}.png" for key in keys if key.endswith(".png")}

    def _rembg(self, number: int, contest: _Contest, on_progress: OnProgress) -> None:
        runs = [
            rembg_folder.run(self.options.rembg, source, self.scratch / f"{label}-{number}", self.cache, self.cpus)
            for source, label in ((self.scratch / "few", "few-by-rembg"), (self.scratch / "pictures", "by-rembg"))
        ]
        few, all_ = runs
        more = all_.images - few.images
        timing = TurnTiming(more, all_.seconds - few.seconds, all_.cpu_seconds - few.cpu_seconds)
        if timing.seconds <= 0 or timing.cpu_seconds <= 0:
            on_progress("rembg: its start varies by more than its pictures take; it counts as part of them")
            timing = TurnTiming(all_.images, all_.seconds, all_.cpu_seconds)
        contest.versions[REMBG] = rembg.VERSION
        contest.add(REMBG, timing, all_.peak_mib)

    def _script(self, name: str, contest: _Contest) -> None:
        engine = self.options.scripts[name]
        folder = self.scratch / "cut-outs" / engine
        folder.mkdir(parents=True, exist_ok=True)
        request = {
            "engine": engine,
            "model": str(self.options.rembg.weights),
            "output": self.options.output_name,
            "size": [self.variant.size.height, self.variant.size.width],
            "mean": self.facts.mean,
            "scale": self.facts.scale,
            "by_maximum": self.facts.input_scaling is InputScaling.PICTURE_MAXIMUM,
            "logits": self.facts.output_activation is OutputActivation.LOGITS,
            "stretch": self.facts.output_stretch is OutputStretch.MIN_MAX,
            "pictures": [str(path) for path in self.paths],
            "folder": str(folder),
        }
        python = str(self._interpreter(engine))
        pin = [sys.executable, "-m", "worker.bench.harness.pin_exec", format_cpu_list(self.cpus)]
        log = self.scratch / f"{engine}.log"
        with log.open("ab") as printed:
            done = subprocess.run(
                [*pin, python, "-P", str(SCRIPT)],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=printed,
                env={**os.environ, "OMP_NUM_THREADS": str(len(self.cpus))},
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        if done.returncode:
            raise SetupError(f"{name} ended with exit status {done.returncode}: {tail(log)}")
        answer = json.loads(done.stdout.splitlines()[-1])
        contest.versions[name] = answer["version"]
        contest.add(name, TurnTiming(len(self.paths), answer["seconds"], answer["cpu_seconds"]), answer["peak_mib"])

    def _interpreter(self, engine: str) -> Path:
        if engine == "openvino":
            return Path(sys.executable)
        return rembg.interpreter(self.cache) if engine == "onnxruntime" else _pytorch_interpreter(self.cache)

    def compare(self) -> list[AgreementRow]:
        """Compare the alpha channels of the last cut-outs with maskmill's."""
        folders = {REMBG: self.scratch / f"by-rembg-{self.options.rounds - 1}"}
        folders |= {name: self.scratch / "cut-outs" / engine for name, engine in self.options.scripts.items()}
        ours = self.scratch / "cut-outs" / OURS
        return [_agreement(name, self.paths, ours, folder) for name, folder in folders.items()]


def _pytorch_interpreter(cache: Path) -> Path:
    return peer_environment.interpreter(cache, PYTORCH[0].replace("==", "-"), PYTORCH, "torch, onnx, PIL")


def _agreement(name: str, paths: Sequence[Path], ours: Path, theirs: Path) -> AgreementRow:
    ious, maes = [], []
    for path in paths:
        mine, other = (_alpha(folder / f"{path.stem}.png") for folder in (ours, theirs))
        if mine.shape != other.shape:
            raise SetupError(f"{name} changed the size of {path.name}: {other.shape} in place of {mine.shape}")
        union = ((mine >= _HALF) | (other >= _HALF)).sum()
        ious.append(float(((mine >= _HALF) & (other >= _HALF)).sum() / union) if union else 1.0)
        maes.append(float(np.abs(mine.astype(int) - other.astype(int)).mean() / 255))
    return {
        "peer": name,
        "iou": round(statistics.mean(ious), 4),
        "worst_iou": round(min(ious), 4),
        "mae": round(statistics.mean(maes), 5),
    }


def _alpha(path: Path) -> Alpha:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.asarray(picture.convert("RGBA"))[..., 3]


def _rows(contest: _Contest) -> list[PeerRow]:
    ours = contest.timings[OURS]
    return [
        {
            "name": name,
            "version": contest.versions[name],
            "images_per_second": round(1 / statistics.median(timing.seconds for timing in timings), 4),
            "cpu_seconds": round(statistics.median(t.cpu_seconds / t.images for t in timings), 4),
            "peak_mib": contest.peaks[name],
            "ours_is_faster": round(paired_speedup(timings, ours), 3),
            "turns": [round(timing.seconds, 4) for timing in timings],
        }
        for name, timings in contest.timings.items()
    ]


def _mean_bytes(paths: Sequence[Path]) -> float:
    return statistics.mean(path.stat().st_size for path in paths)
