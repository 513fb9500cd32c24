"""Verify a bundle: digests, loading, and each variant's masks against those of FP32 and the true masks.

    locate (digest) ── variant_run: a process per variant ── masks ── agreement with FP32 computed in f32
                                                                  └── quality against true masks

Variants are verified size by size, FP32 first. A variant that fails does not stop the others.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.contract.errors import BundleError, InferenceFailed
from worker.contract.settings import LimitSettings, ModelSettings
from worker.convert.evaluate import scores, variant_run
from worker.convert.evaluate.agreement import Agreement
from worker.convert.evaluate.pictures import with_true_mask
from worker.convert.evaluate.scores import Grey, Quality
from worker.convert.evaluate.variant_run import RunResult, RunTask
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.format.manifest import verified_sha256
from worker.model.sources import bundles
from worker.model.sources.bundles import Survey
from worker.model.sources.progress import OnProgress
from worker.model.sources.s3_cache import Objects

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision

_REFERENCES = ("fp32", "fp16")
"""Stored precisions that can serve as reference, in order of preference."""


@dataclass(frozen=True)
class VariantCheck:
    """Result of verifying one variant."""

    label: str
    digest: str = ""
    """Digest of the variant; empty if its files are incomplete or differ from the bundle manifest."""
    run: RunResult | None = None
    reference: str = ""
    """What it was compared with; empty for the reference itself, and if there is none."""
    agreement: Agreement | None = None
    worst_iou: float | None = None
    quality: Quality | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    """Why the variant fails; empty if it passes."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class VerifyOptions:
    """Pictures, arithmetic and limits for verifying variants."""

    pictures: tuple[Path, ...]
    true_masks: Mapping[int, Path]
    """True masks by the index of their picture."""
    arithmetic: FloatPrecision
    """Precision of the float part, as the worker would run it. The reference is always computed in f32."""
    cpus: tuple[int, ...]
    limits: LimitSettings
    min_iou: float | None = None
    """Least mean IoU with the reference for a variant to pass."""


def check_files(survey: Survey) -> list[str]:
    """Return complaints about files beside the variants that are missing or differ from the bundle manifest."""
    if survey.manifest is None:
        return []
    complaints = [
        f"{name} is listed in the bundle manifest but missing; copy the bundle again"
        for name in survey.manifest.files
        if name not in survey.sizes
    ]
    variants = {path for candidate in survey.listing.candidates for path in (candidate.xml, candidate.bin)}
    for name in survey.sizes:
        if survey.root and name in survey.manifest.files and name not in variants:
            try:
                verified_sha256(survey.manifest, name, survey.root / name, remedy="copy the bundle again")
            except BundleError as error:
                complaints.append(str(error))
    return complaints


def check_variants(
    settings: ModelSettings,
    candidates: Sequence[Candidate],
    options: VerifyOptions,
    *,
    scratch: Path,
    objects: Objects | None = None,
    progress: OnProgress | None = None,
) -> Iterator[VariantCheck]:
    """Verify variants one by one and yield each result as soon as it is known.

    Args:
        settings: source and cache.
        candidates: variants of the source.
        options: pictures and limits.
        scratch: folder for masks; needs about two bytes per pixel of the input per picture.
        objects: the S3 port, for an `s3://` source.
        progress: called with the progress of each download.

    Raises:
        SourceError: a picture or true mask cannot be read.
        PlacementError: the CPUs cannot be used.
        ServiceError: S3 or the hub fails.
    """
    ordered = sorted(candidates, key=lambda c: (c.name, c.size, PRECISIONS.index(c.precision)))
    for _, group in itertools.groupby(ordered, key=lambda c: (c.name, c.size)):
        yield from _Group(settings, options, scratch, objects, progress).check(list(group))


class _Group:
    """Variants of one network and size, which share a reference."""

    def __init__(
        self,
        settings: ModelSettings,
        options: VerifyOptions,
        scratch: Path,
        objects: Objects | None,
        progress: OnProgress | None,
    ) -> None:
        self._settings, self._options, self._objects, self._progress = settings, options, objects, progress
        self._masks, self._reference_masks = scratch / "masks", scratch / "reference"
        self._reference = ""

    def check(self, candidates: list[Candidate]) -> Iterator[VariantCheck]:
        for candidate in candidates:
            try:
                yield self._check_one(candidate)
            except (BundleError, InferenceFailed) as error:
                yield VariantCheck(candidate.label, failure=str(error))
        for folder in (self._masks, self._reference_masks):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_one(self, candidate: Candidate) -> VariantCheck:
        selected = {"name": candidate.name, "size": candidate.size, "precision": candidate.precision}
        bundle = bundles.locate(self._settings.model_copy(update=selected), self._objects, on_progress=self._progress)
        task = RunTask(
            bundle.variant,
            self._options.arithmetic,
            self._options.pictures,
            self._masks,
            self._options.cpus,
            self._options.limits,
        )
        check = VariantCheck(candidate.label, bundle.variant.digest)
        if not self._reference and candidate.precision in _REFERENCES:
            reference = replace(task, arithmetic="f32", output=self._reference_masks)
            result = variant_run.run(reference)
            self._reference = f"{candidate.precision} in f32"
            if task.arithmetic == "f32":
                return self._measured(check, result, reference)
        return self._measured(check, variant_run.run(task), task)

    def _measured(self, check: VariantCheck, result: RunResult, task: RunTask) -> VariantCheck:
        """Add to a check what was measured, compared with the reference and with the true masks."""
        notes = list(result.facts["notes"])
        compared: Agreement | None = None
        worst: float | None = None
        is_reference = task.output == self._reference_masks
        if self._reference and not is_reference:
            compared, worst = scores.agreement(self._pairs(task))
        elif not is_reference:
            notes.append("no FP32 or FP16 of this size to compare with")
        return replace(
            check,
            run=result,
            reference="" if is_reference else self._reference,
            agreement=compared,
            worst_iou=worst,
            quality=scores.quality(self._true_pairs(task)) if self._options.true_masks else None,
            notes=tuple(notes),
            failure=self._failure(compared, is_reference=is_reference),
        )

    def _failure(self, compared: Agreement | None, *, is_reference: bool) -> str:
        least = self._options.min_iou
        if least is None or is_reference:
            return ""
        if compared is None:
            return "the agreement cannot be measured without FP32 or FP16 of the same size"
        if compared.iou < least:
            return f"IoU {compared.iou:.4f} with {self._reference} is below {least:g}; convert it again"
        return ""

    def _pairs(self, task: RunTask) -> Iterator[tuple[Grey, Grey]]:
        indices = range(len(task.pictures))
        for mask, reference in zip(
            variant_run.masks(task.output, indices), variant_run.masks(self._reference_masks, indices), strict=True
        ):
            yield np.load(mask), np.load(reference)

    def _true_pairs(self, task: RunTask) -> Iterator[tuple[Grey, Grey]]:
        for index, true_mask in self._options.true_masks.items():
            (mask,) = variant_run.masks(task.output, [index])
            yield with_true_mask(np.load(mask), task.pictures[index], true_mask, self._options.limits)
