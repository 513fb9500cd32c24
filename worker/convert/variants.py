"""Convert a checkpoint to a bundle with all requested variants, for `worker model convert`.

    validate the request ── pictures ── order of the image tiles ──> for each size: fp32, then the others,
    each in its own process ──> check the agreement ──> manifest ──> the bundle replaces the previous one

The bundle is written completely or not at all. Only `build_variant` loads OpenVINO and NNCF; how progress is shown is
up to the caller.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.errors import BundleError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import Settings
from worker.convert import calibration, licence, peak_memory
from worker.convert.birefnet import checkpoint as checkpoint_file
from worker.convert.birefnet import layout
from worker.convert.birefnet.presets import Preset, find_preset
from worker.convert.birefnet.rewrites import ALL
from worker.convert.birefnet.tile_order import OrderDecision, TileOrder
from worker.convert.calibration import CalibrationSet
from worker.convert.evaluate.agreement import Agreement
from worker.convert.request import (
    BuiltVariant,
    ConversionProgress,
    ConversionRequest,
    ConversionResult,
    OnProgress,
    fetch_checkpoint,
    validate,
)
from worker.convert.variant_process import build_in_process
from worker.cpu.memory import LARGEST_KNOWN
from worker.model.format import writer
from worker.model.format.agreement_limits import LIMITS
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.format.manifest import PeakMemory, sha256_of
from worker.model.format.variant import Variant

NAMES = {layout.SWIN_T.name: "birefnet_lite", layout.SWIN_L.name: "birefnet"}
"""Names of checkpoints without a preset, by backbone."""

REFERENCE = "fp32"
TRIAL_PICTURES = 6
"""Pictures on which the order of the image tiles is found out."""

COMPARED = 8
"""Most pictures on which variants are compared with FP32; at 1024 each takes seconds in every precision."""

COMPARED_SHARE = 4
"""One picture of so many is compared on. INT8 is not calibrated on it, so that the comparison is a fair one."""

LARGEST_SWIN_T = 300_000_000
"""Bytes of a checkpoint above which its backbone is Swin-L: 220 M parameters, 440 MB in 16 bits. Swin-T has 44 M, 178
MB in 32 bits."""

TOOLS = ("maskmill", "openvino", "numpy", "pillow")
"""Distributions whose versions the bundle manifest records, with NNCF where it is used."""

_SCRATCH = ".scratch"
_GUESS = "a guess"


def convert(
    request: ConversionRequest, settings: Settings, on_progress: OnProgress = lambda progress: None
) -> ConversionResult:
    """Write the bundle. The previous content of the folder is replaced only after everything has succeeded.

    Args:
        request: what to convert.
        settings: cache folder, limits of a picture, S3.
        on_progress: called at every step.

    Raises:
        SettingsError: a size, precision or number of pictures is invalid.
        BundleNotFound: the checkpoint, repository or calibration folder does not exist.
        BundleError: the checkpoint is not of BiRefNet, the disk fails, or a variant differs too much from FP32.
        SourceError: the calibration set holds no picture.
        SetupError: a package is missing.
        ServiceError: the hub or S3 fails.
    """
    validate(request)
    output = request.output.absolute()
    writer.check_destination(output)
    conversion = _Conversion(request, settings, on_progress)
    checkpoint = conversion.checkpoint()
    with writer.staged(output) as made:
        built = conversion.build_all(checkpoint, made)
        _check_agreement(built, force=request.force)
        shutil.rmtree(made / _SCRATCH)
        (made / licence.FILE).write_text(licence.text(conversion.preset), "utf-8")
        writer.write_bundle_manifest(
            made,
            conversion.name,
            description=licence.description(conversion.name),
            license=licence.spdx(conversion.preset),
            source=conversion.source_section(checkpoint),
            tools=_versions(request.precisions),
            calibration=conversion.calibration_section(),
            quantisation=asdict(request.quantisation) if "int8" in request.precisions else None,
            variants={conversion.candidate(b.size, b.precision).xml: _manifest_entry(b) for b in built},
            memory=peak_memory.manifest_section(conversion.measure_memory(built, made)),
        )
    return ConversionResult(output, tuple(built), conversion.warnings(built), conversion.decision)


class _Conversion:
    """One conversion: its variants in order, its calibration set, and the count of its steps.

    `checkpoint` tells the preset and the name; `build_all` finds out the order of the image tiles.
    """

    preset: Preset | None = None
    name: str = ""
    decision: OrderDecision

    def __init__(self, request: ConversionRequest, settings: Settings, on_progress: OnProgress) -> None:
        self._request, self._settings, self._on_progress = request, settings, on_progress
        self._rewrites = tuple(sorted(rewrite.value for rewrite in ALL - request.without))
        self._set: CalibrationSet | None = None
        self._variants = [
            (size, precision)
            for size in sorted(set(request.sizes), key=lambda size: (size.pixels, size), reverse=True)
            # the others are compared with fp32, so it is built whether requested or not
            for precision in (REFERENCE, *(p for p in PRECISIONS if p in request.precisions and p != REFERENCE))
        ]
        self._step = 0

    def checkpoint(self) -> Path:
        """Return the local path of the checkpoint, downloaded if necessary."""
        self._report("checkpoint")
        path = fetch_checkpoint(self._request.checkpoint, self._settings)
        self._sha256 = sha256_of(path)
        self._is_large = path.stat().st_size > LARGEST_SWIN_T
        self.preset = find_preset(self._request.checkpoint, self._sha256)
        self.name = self._request.name or (self.preset.model_name if self.preset else _name_by_backbone(path))
        return path

    def candidate(self, size: InputSize, precision: str) -> Candidate:
        """Return the file names of a variant."""
        return Candidate(self.name, size, precision)

    def build_all(self, checkpoint: Path, made: Path) -> list[BuiltVariant]:
        """Build every variant and return the requested ones, which are written below `made`."""
        scratch = made / _SCRATCH
        scratch.mkdir()
        self._next_step("pictures")
        if any(precision != REFERENCE for _, precision in self._variants):
            self._set = calibration.gather(
                self._request.calibration_source,
                self._request.calibration_images,
                self._settings,
                scratch / "photographs",
            )
        self.decision = self._tile_order(checkpoint, scratch)
        built = []
        for size, precision in self._variants:
            self._next_step(f"{size.short} {precision}")
            if precision == REFERENCE:
                self._write_pictures(size, scratch)
            kept = precision in self._request.precisions
            variant = self._build(checkpoint, size, precision, made if kept else scratch, scratch)
            built += [variant] if kept else []
        return built

    def _tile_order(self, checkpoint: Path, scratch: Path) -> OrderDecision:
        """Return the order that the checkpoint was trained with: as given, as published, or found out on pictures."""
        if self._request.tile_order:
            return OrderDecision(self._request.tile_order, "as requested")
        if self.preset and self.preset.tile_order:
            return OrderDecision(self.preset.tile_order, f"{self.preset.repository} was trained with it")
        try:
            pictures = self._set or calibration.gather(
                self._request.calibration_source, TRIAL_PICTURES, self._settings, scratch / "trial"
            )
        except SetupError:
            return OrderDecision(TileOrder.ROWS, f"{_GUESS}: unknown checkpoint, and no photographs to try both on")
        size = min(self._request.sizes, key=lambda size: size.pixels)
        few = replace(pictures, pictures=tuple(calibration.spread(pictures.pictures, TRIAL_PICTURES)))
        np.save(scratch / "trial.npy", few.tensors(size))
        found = build_in_process(
            {"checkpoint": str(checkpoint), "size": str(size), "pictures": str(scratch / "trial.npy")},
            "tile order",
            lambda activity, done, total: self._report(f"tile order: {activity}", done, total),
            "worker.convert.tile_order_trial",
        )
        return OrderDecision(TileOrder(found["order"]), found["reason"], found["softness"])

    def _build(self, checkpoint: Path, size: InputSize, precision: str, root: Path, scratch: Path) -> BuiltVariant:
        label = f"{size.short} {precision}"
        xml = root / self.candidate(size, precision).xml
        xml.parent.mkdir(parents=True, exist_ok=True)
        result = build_in_process(
            self._task(checkpoint, size, precision, xml, scratch),
            label,
            lambda activity, done, total: self._report(f"{label}: {activity}", done, total),
        )
        agreement = None if result["agreement"] is None else Agreement(**result["agreement"])
        return BuiltVariant(
            size=size,
            precision=precision,
            bytes=xml.with_suffix(".bin").stat().st_size,
            build_seconds=result["build_seconds"],
            compare_seconds=result["compare_seconds"],
            peak_memory_mib=result["peak_memory_mib"],
            agreement=agreement,
            complaint=agreement.complaint(LIMITS[precision]) if agreement else "",
        )

    def _task(self, checkpoint: Path, size: InputSize, precision: str, xml: Path, scratch: Path) -> dict[str, Any]:
        """Return the fields of `build_variant.BuildTask`."""
        return {
            "checkpoint": str(checkpoint),
            "size": str(size),
            "precision": precision,
            "rewrites": self._rewrites,
            "xml": str(xml),
            "pictures": str(scratch / f"pictures_{size}.npy"),
            "compared": self._compared,
            "reference": str(scratch / f"reference_{size}.npy"),
            "quantisation": asdict(self._request.quantisation),
            "tile_order": str(self.decision.order),
            "facts": {"family": "birefnet", "tile_order": f"{self.decision.order}: {self.decision.reason}"},
        }

    def measure_memory(self, built: Sequence[BuiltVariant], made: Path) -> dict[str, dict[str, PeakMemory]]:
        """Measure the peak memory of variants that `worker plan` has no table for, by path of their graph."""
        found = {}
        for one in built:
            if self._is_large or one.size.pixels > LARGEST_KNOWN**2:
                self._report(f"{one.label}: peak memory")
                files = self.candidate(one.size, one.precision)
                variant = Variant(self.name, one.size, one.precision, made / files.xml, made / files.bin, "")
                found[files.xml] = peak_memory.measure(variant)
        return found

    def _write_pictures(self, size: InputSize, scratch: Path) -> None:
        """Write the pictures at one size for the build processes to map; without a set, one grey picture."""
        grey = np.full((1, size.height, size.width, 3), 128, np.uint8)
        np.save(scratch / f"pictures_{size}.npy", grey if self._set is None else self._set.tensors(size))

    def source_section(self, checkpoint: Path) -> dict[str, Any]:
        """Return section `source` of the bundle manifest; of a local file it gives the name without the path."""
        given = self._request.checkpoint
        return {
            "checkpoint": given if given.startswith("hf://") else checkpoint.name,
            "sha256": self._sha256,
            "bytes": checkpoint.stat().st_size,
            "rewrites": list(self._rewrites),
            "tile_order": self.decision.as_dict(),
        }

    def calibration_section(self) -> dict[str, Any] | None:
        """Return section `calibration` of the bundle manifest."""
        if self._set is None:
            return None
        return {
            "source": _without_path(self._set.source),
            "images": len(self._set.pictures),
            "compared": self._compared,
            "sha256": self._set.digest,
        }

    @property
    def _compared(self) -> int:
        """Number of pictures, from the first, that are compared on and, if there are others, not calibrated on."""
        if self._set is None:
            return 0
        count = len(self._set.pictures)
        kept = max(count // COMPARED_SHARE, 1) if "int8" in self._request.precisions else count
        return min(COMPARED, kept)

    def warnings(self, built: Sequence[BuiltVariant]) -> tuple[str, ...]:
        """Return warnings: a restrictive licence, skipped calibration files, variants kept only because of `force`."""
        skipped = self._set.skipped if self._set else ()
        return (
            *licence.warnings(self.preset),
            *(
                ["the order of the image tiles is uncertain: look at masks of both --tile-order"]
                if self._doubtful
                else []
            ),
            *(
                ["INT8 was calibrated on the only picture that it was compared on: give more pictures"]
                if self._set and len(self._set.pictures) == 1 and any(v.precision == "int8" for v in built)
                else []
            ),
            *(f"calibration skipped {text}" for text in skipped),
            *(f"{v.label} differs too much from FP32, kept by --force: {v.complaint}" for v in built if v.complaint),
        )

    @property
    def _doubtful(self) -> bool:
        return self.decision.is_close or self.decision.reason.startswith(_GUESS)

    def _next_step(self, what: str) -> None:
        self._step += 1
        self._report(what)

    def _report(self, what: str, done: int = 0, total: int = 0) -> None:
        # Steps: checkpoint, pictures, one per variant.
        self._on_progress(ConversionProgress(self._step, len(self._variants) + 2, what, done, total))


def _check_agreement(built: Sequence[BuiltVariant], *, force: bool) -> None:
    """Refuse the bundle if variants exceed their limits. All are built first, so that the error names each of them."""
    bad = [f"{one.label}: {one.complaint}" for one in built if one.complaint]
    if bad and not force:
        raise BundleError(
            f"masks differ too much from FP32 ({'; '.join(bad)}); give calibration pictures similar to your own, leave "
            "the precision out, or keep it with --force. Nothing was written"
        )


def _name_by_backbone(checkpoint: Path) -> str:
    """Name a checkpoint without a preset; the network reports a damaged one later."""
    backbone = checkpoint_file.backbone_in(checkpoint)
    return NAMES[backbone.name if backbone else layout.SWIN_T.name]


def _without_path(source: str) -> str:
    """Reduce a folder to its name; its path means nothing on another machine."""
    return source if source.startswith("s3://") or source == calibration.BUILT_IN else Path(source).resolve().name


def _manifest_entry(built: BuiltVariant) -> dict[str, Any]:
    """Return the entry of one variant in the bundle manifest."""
    facts = asdict(built) | {"size": built.size.as_json()}
    del facts["bytes"]  # listed under `files`
    facts["kept_by_force"] = facts.pop("complaint")
    return facts | {"agreement": built.agreement and built.agreement.as_dict()}


def _versions(precisions: Sequence[str]) -> dict[str, str]:
    names = (*TOOLS, "nncf") if "int8" in precisions else TOOLS
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
