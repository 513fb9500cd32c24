"""`worker model convert`: a checkpoint into a bundle with every variant asked for, whole or not at all.

    check what was asked ── pictures ──> for each size: fp32, then the others, each in its own process ──> judge
    ──> manifest ──> the bundle takes its place

Knows neither OpenVINO nor NNCF, which only `build_variant` loads, nor how progress is shown.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.errors import BundleError
from worker.contract.settings import Settings
from worker.convert import calibration, licence
from worker.convert.birefnet.rewrites import ALL
from worker.convert.calibration import CalibrationSet
from worker.convert.evaluate.agreement import LIMITS, Agreement
from worker.convert.request import Built, Event, Report, Request, Watch, check, fetch_checkpoint
from worker.convert.variant_process import build_in_process
from worker.model.format import writer
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.format.manifest import sha256_of

NAME = "birefnet_lite"
REFERENCE = "fp32"
COMPARED = 8
"""Pictures on which variants are compared with FP32: at 1024 each takes seconds in either."""

TOOLS = ("maskmill", "openvino", "numpy", "pillow")
"""Distributions whose versions go into the manifest; NNCF's too, where it was used."""

_SCRATCH = ".scratch"


def convert(request: Request, settings: Settings, watch: Watch = lambda event: None) -> Report:
    """Make the bundle; what was at its place before is replaced only at the very end.

    Args:
        request: What to make.
        settings: Cache folder, limits of a picture, S3.
        watch: Told of every step.

    Raises:
        SettingsError: A size, precision or number of pictures makes no sense.
        BundleNotFound: No such checkpoint, repository or calibration folder.
        BundleError: The checkpoint is no BiRefNet-lite, the disk refuses, or a variant disagrees with FP32.
        SourceError: The calibration set holds no picture.
        SetupError: A package is missing.
        ServiceError: The hub or S3 does not do its part.
    """
    check(request)
    output = request.output.absolute()
    writer.check_destination(output)
    run = _Run(request, settings, watch)
    checkpoint = run.checkpoint()
    with writer.staged(output) as made:
        built = run.build_all(checkpoint, made)
        _judge(built, force=request.force)
        shutil.rmtree(made / _SCRATCH)
        (made / licence.FILE).write_text(licence.TEXT, "utf-8")
        writer.write_bundle_manifest(
            made,
            NAME,
            description=licence.DESCRIPTION,
            license=licence.SPDX,
            source=run.source(checkpoint),
            tools=_versions(request.precisions),
            calibration=run.calibration_facts(),
            quantisation=asdict(request.recipe) if "int8" in request.precisions else None,
            variants={_candidate(b.size, b.precision).xml: _facts(b) for b in built},
        )
    return Report(output, tuple(built), run.warnings(built))


class _Run:
    """One conversion."""

    def __init__(self, request: Request, settings: Settings, watch: Watch) -> None:
        self._request, self._settings, self._watch = request, settings, watch
        self._rewrites = tuple(sorted(rewrite.value for rewrite in ALL - request.without))
        self._set: CalibrationSet | None = None
        self._jobs = [
            (size, precision)
            for size in sorted(set(request.sizes), reverse=True)
            # fp32 is what the others are compared with, asked for or not
            for precision in (REFERENCE, *(p for p in PRECISIONS if p in request.precisions and p != REFERENCE))
        ]
        self._step = 0

    def checkpoint(self) -> Path:
        """The checkpoint on this disk."""
        self._tell("checkpoint")
        return fetch_checkpoint(self._request.checkpoint, self._settings)

    def build_all(self, checkpoint: Path, made: Path) -> list[Built]:
        """Every variant that was asked for, written below `made`."""
        scratch = made / _SCRATCH
        scratch.mkdir()
        self._next("pictures")
        if any(precision != REFERENCE for _, precision in self._jobs):
            self._set = calibration.gather(
                self._request.pictures, self._request.images, self._settings, scratch / "photographs"
            )
        built = []
        for size, precision in self._jobs:
            self._next(f"{size} {precision}")
            if precision == REFERENCE:
                self._write_pictures(size, scratch)
            kept = precision in self._request.precisions
            one = self._build(checkpoint, size, precision, made if kept else scratch, scratch)
            built += [one] if kept else []
        return built

    def _build(self, checkpoint: Path, size: int, precision: str, root: Path, scratch: Path) -> Built:
        xml = root / _candidate(size, precision).xml
        xml.parent.mkdir(parents=True, exist_ok=True)
        task = {
            "checkpoint": str(checkpoint),
            "size": size,
            "precision": precision,
            "rewrites": self._rewrites,
            "xml": str(xml),
            "pictures": str(scratch / f"pictures_{size}.npy"),
            "compared": 0 if self._set is None else min(COMPARED, len(self._set.pictures)),
            "reference": str(scratch / f"reference_{size}.npy"),
            "recipe": asdict(self._request.recipe),
        }
        result = build_in_process(
            task,
            f"{size} {precision}",
            lambda what, done, total: self._tell(f"{size} {precision}: {what}", done, total),
        )
        got = result["agreement"]
        agreement = None if got is None else Agreement(**got)
        return Built(
            size=size,
            precision=precision,
            bytes=xml.with_suffix(".bin").stat().st_size,
            build_seconds=result["build_seconds"],
            compare_seconds=result["compare_seconds"],
            peak_memory_mib=result["peak_memory_mib"],
            agreement=agreement,
            complaint=LIMITS[precision].complaint(agreement) if agreement else "",
        )

    def _write_pictures(self, size: int, scratch: Path) -> None:
        """The pictures at one size, for the processes to map; without any, a grey one to try the network with."""
        grey = np.full((1, size, size, 3), 128, np.uint8)
        np.save(scratch / f"pictures_{size}.npy", grey if self._set is None else self._set.tensors(size))

    def source(self, checkpoint: Path) -> dict[str, Any]:
        """Section `source` of the manifest; of a local file only its name, a path says nothing elsewhere."""
        asked = self._request.checkpoint
        return {
            "checkpoint": asked if asked.startswith("hf://") else checkpoint.name,
            "sha256": sha256_of(checkpoint),
            "bytes": checkpoint.stat().st_size,
            "rewrites": list(self._rewrites),
        }

    def calibration_facts(self) -> dict[str, Any] | None:
        """Section `calibration` of the manifest."""
        if self._set is None:
            return None
        return {
            "source": _shareable(self._set.source),
            "images": len(self._set.pictures),
            "sha256": self._set.digest,
        }

    def warnings(self, built: Sequence[Built]) -> tuple[str, ...]:
        """What whoever runs this should read."""
        skipped = self._set.skipped if self._set else ()
        return (
            *(f"calibration leaves out {text}" for text in skipped),
            *(f"{one.label} disagrees with FP32, kept by force: {one.complaint}" for one in built if one.complaint),
        )

    def _next(self, what: str) -> None:
        self._step += 1
        self._tell(what)

    def _tell(self, what: str, done: int = 0, total: int = 0) -> None:
        # Steps: checkpoint, pictures, one per variant.
        self._watch(Event(self._step, len(self._jobs) + 2, what, done, total))


def _judge(built: Sequence[Built], *, force: bool) -> None:
    """Refuse the bundle if a variant is out of bounds, after all have been looked at."""
    bad = [f"{one.label}: {one.complaint}" for one in built if one.complaint]
    if bad and not force:
        raise BundleError(
            f"masks disagree with FP32 ({'; '.join(bad)}); give calibration pictures like those to be cut out, leave "
            "the precision out, or keep it with --force. Nothing was written"
        )


def _shareable(source: str) -> str:
    """A folder without the path to it, which says nothing on another machine."""
    return source if source.startswith("s3://") or source == calibration.BUILT_IN else Path(source).resolve().name


def _candidate(size: int, precision: str) -> Candidate:
    return Candidate(NAME, size, precision)


def _facts(built: Built) -> dict[str, Any]:
    """One variant in the manifest."""
    facts = asdict(built)
    del facts["bytes"]  # stands under `files`
    facts["kept_by_force"] = facts.pop("complaint")
    return facts | {"agreement": built.agreement and built.agreement.as_dict()}


def _versions(precisions: Sequence[str]) -> dict[str, str]:
    names = (*TOOLS, "nncf") if "int8" in precisions else TOOLS
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
