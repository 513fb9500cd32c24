"""Whether a bundle is sound: digests, loading, and each variant's masks against those of FP32 and the truth.

    locate (digest) ── trial: a process per variant ── masks ── agreement with FP32 computed in f32
                                                            └── quality against true masks

Variants are taken size by size, FP32 first. What is wrong with one is noted and the others go on.
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
from worker.convert.evaluate.pictures import with_truth
from worker.convert.evaluate.scores import Grey, Quality
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.format.manifest import verified_sha256
from worker.model.sources import bundles
from worker.model.sources.bundles import Survey
from worker.model.sources.progress import OnProgress
from worker.model.sources.s3_cache import Objects

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision

_REFERENCES = ("fp32", "fp16")
"""Stored precisions that may serve as reference, the better first."""


@dataclass(frozen=True)
class Checked:
    """One variant."""

    label: str
    digest: str = ""
    """Of the variant; empty if its files are not those of the manifest, or not whole."""
    run: variant_run.Run | None = None
    reference: str = ""
    """What it was compared with; empty for the reference itself, or where there is none."""
    agreement: Agreement | None = None
    worst_iou: float | None = None
    quality: Quality | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    """Why it does not pass; empty if it does."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Demand:
    """What to check, and how."""

    pictures: tuple[Path, ...]
    truths: Mapping[int, Path]
    """True masks by the place of their picture."""
    arithmetic: FloatPrecision
    """Of the float part, as the worker would run it. The reference is always computed in f32."""
    cpus: tuple[int, ...]
    limits: LimitSettings
    min_iou: float | None = None
    """Mean IoU with the reference below which a variant fails."""


def check_files(survey: Survey) -> list[str]:
    """What is wrong with the files of a bundle beside its variants: lost, or other than described; in words."""
    if survey.manifest is None:
        return []
    complaints = [
        f"{name} is in the manifest and not there; copy the bundle again"
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
    demand: Demand,
    *,
    scratch: Path,
    objects: Objects | None = None,
    progress: OnProgress | None = None,
) -> Iterator[Checked]:
    """Check variants one by one; each result comes when it is known.

    Args:
        settings: source and cache.
        candidates: variants of the source.
        demand: pictures and limits.
        scratch: folder for masks, about R x R bytes for each picture, twice.
        objects: the S3 port, for an `s3://` source.
        progress: told how far each download is.

    Raises:
        SourceError: a picture or true mask cannot be read.
        PlacementError: the CPUs cannot be used.
        ServiceError: from S3 or the hub.
    """
    ordered = sorted(candidates, key=lambda c: (c.name, c.size, PRECISIONS.index(c.precision)))
    for _, group in itertools.groupby(ordered, key=lambda c: (c.name, c.size)):
        yield from _Group(settings, demand, scratch, objects, progress).check(list(group))


class _Group:
    """Variants of one network and size, which share a reference."""

    def __init__(
        self,
        settings: ModelSettings,
        demand: Demand,
        scratch: Path,
        objects: Objects | None,
        progress: OnProgress | None,
    ) -> None:
        self._settings, self._demand, self._objects, self._progress = settings, demand, objects, progress
        self._masks, self._reference_masks = scratch / "masks", scratch / "reference"
        self._reference = ""

    def check(self, candidates: list[Candidate]) -> Iterator[Checked]:
        for candidate in candidates:
            try:
                yield self._check_one(candidate)
            except (BundleError, InferenceFailed) as error:
                yield Checked(candidate.label, failure=str(error))
        for folder in (self._masks, self._reference_masks):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_one(self, candidate: Candidate) -> Checked:
        asked = {"name": candidate.name, "size": candidate.size, "precision": candidate.precision}
        bundle = bundles.locate(self._settings.model_copy(update=asked), self._objects, on_progress=self._progress)
        task = variant_run.Task(
            bundle.variant,
            self._demand.arithmetic,
            self._demand.pictures,
            self._masks,
            self._demand.cpus,
            self._demand.limits,
        )
        checked = Checked(candidate.label, bundle.variant.digest)
        if not self._reference and candidate.precision in _REFERENCES:
            reference = replace(task, arithmetic="f32", output=self._reference_masks)
            run = variant_run.run(reference)
            self._reference = f"{candidate.precision} in f32"
            if task.arithmetic == "f32":
                return self._measured(checked, run, reference)
        return self._measured(checked, variant_run.run(task), task)

    def _measured(self, checked: Checked, run: variant_run.Run, task: variant_run.Task) -> Checked:
        notes = list(run.facts["notes"])
        compared: Agreement | None = None
        worst: float | None = None
        itself = task.output == self._reference_masks
        if self._reference and not itself:
            compared, worst = scores.agreement(self._pairs(task))
        elif not itself:
            notes.append("no FP32 or FP16 of this size to compare with")
        return replace(
            checked,
            run=run,
            reference="" if itself else self._reference,
            agreement=compared,
            worst_iou=worst,
            quality=scores.quality(self._true_pairs(task)) if self._demand.truths else None,
            notes=tuple(notes),
            failure=self._complaint(compared, itself=itself),
        )

    def _complaint(self, compared: Agreement | None, *, itself: bool) -> str:
        least = self._demand.min_iou
        if least is None or itself:
            return ""
        if compared is None:
            return "its agreement cannot be measured without FP32 or FP16 of the same size"
        if compared.iou < least:
            return f"IoU {compared.iou:.4f} with {self._reference} is below {least:g}; convert it again"
        return ""

    def _pairs(self, task: variant_run.Task) -> Iterator[tuple[Grey, Grey]]:
        indices = range(len(task.pictures))
        for mask, reference in zip(
            variant_run.masks(task.output, indices), variant_run.masks(self._reference_masks, indices), strict=True
        ):
            yield np.load(mask), np.load(reference)

    def _true_pairs(self, task: variant_run.Task) -> Iterator[tuple[Grey, Grey]]:
        for index, truth in self._demand.truths.items():
            (mask,) = variant_run.masks(task.output, [index])
            yield with_truth(np.load(mask), truth, self._demand.limits)
