"""Run networks on an exam and score their masks.

bundle ── variant_run: a process per variant ──┐
                                                ├─ masks at the size of the pictures ── scores, sheet
rembg ── its own environment and process ──────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.bench.harness import machine
from worker.bench.quality import rembg, sheet
from worker.bench.quality.exam import Exam
from worker.bench.quality.rembg import RembgNetwork
from worker.bench.quality.report import (
    SCHEMA_VERSION,
    NetworkFacts,
    NetworkRow,
    PictureScores,
    QualityDocument,
    QualityReport,
    RembgAgreement,
    Scores,
)
from worker.contract.settings import LimitSettings
from worker.convert.evaluate import scores, variant_run
from worker.convert.evaluate.scores import Quality
from worker.convert.evaluate.variant_run import RunTask
from worker.cpu import topology
from worker.images.tensor import to_mask
from worker.model.format.manifest import sha256_of
from worker.model.format.variant import Bundle

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision

OnProgress = Callable[[str], None]
Grey = NDArray[np.uint8]

_PROGRESS_SECONDS = 30


@dataclass(frozen=True)
class QualityOptions:
    """What to measure, and how."""

    exam: Exam
    bundles: Sequence[Bundle]
    arithmetic: FloatPrecision
    """Precision of the float part."""
    cpus: tuple[int, ...]
    limits: LimitSettings
    cache: Path
    """Folder of rembg's environment."""
    rembg: Sequence[RembgNetwork] = ()
    sheet_rows: int = 12
    """Pictures on the sheet; they are spread evenly over the exam."""
    notes: tuple[str, ...] = ()
    """Remarks to add to the report."""


@dataclass(frozen=True)
class _Answers:
    """The masks of one network, and what is known about it."""

    label: str
    folder: Path
    """Masks by index of the picture: `{index}.npy`, u8, of any size."""
    facts: NetworkFacts

    def mask(self, index: int, shape: tuple[int, ...]) -> Grey:
        """Return the mask at the size of the picture: u8 `[h, w]`."""
        (path,) = variant_run.masks(self.folder, [index])
        height, width = shape
        stored = np.load(path)
        return stored if stored.shape == shape else np.asarray(to_mask(stored, width, height))


def run(options: QualityOptions, scratch: Path, on_progress: OnProgress) -> QualityReport:
    """Run all networks on the exam and score them.

    Args:
        options: what to measure.
        scratch: folder for masks; needs a byte per pixel, picture and network.
        on_progress: called with a line at a time.

    Raises:
        SourceError: a picture or true mask cannot be read, or they differ in size.
        SetupError: pysodmetrics or rembg is missing or fails.
        BundleError, InferenceFailed, PlacementError: see `variant_run.run`.
    """
    exam, limits = options.exam, options.limits
    truths = [exam.truth(index, limits) for index in range(len(exam.pictures))]  # before anything long runs
    answers = [*_bundle_answers(options, scratch, on_progress), *_rembg_answers(options, scratch, on_progress)]
    networks: list[NetworkRow] = []
    for answer in answers:
        each = _scored(answer, truths, on_progress)
        networks.append(
            NetworkRow(
                label=answer.label,
                scores=_scores(scores.mean(each)),
                pictures=[
                    PictureScores(picture=path.name, **_scores(one))
                    for path, one in zip(exam.pictures, each, strict=True)
                ],
                **answer.facts,
            )
        )
    document = QualityDocument(
        schema_version=SCHEMA_VERSION,
        benchmark="quality",
        machine=machine.facts(topology.read()),
        exam={
            "name": exam.name,
            "pictures": len(exam.pictures),
            "sha256": exam.digest,
            "description": exam.description,
            "licence": exam.licence,
        },
        networks=networks,
        against_rembg=_against_rembg(options, answers, truths),
        notes=list(options.notes),
    )
    columns = {answer.label: answer.mask for answer in answers}
    rows = _sheet_rows(len(exam.pictures), options.sheet_rows)
    made = sheet.make([(exam.pictures[index], truths[index], index) for index in rows], columns, networks, limits)
    return QualityReport(document, made)


def labels(bundles: Sequence[Bundle]) -> list[str]:
    """Return a label for each bundle; the source is added where two would be alike."""
    short = [bundle.variant.label for bundle in bundles]
    return [
        label if short.count(label) == 1 else f"{label} ({bundle.source})"
        for label, bundle in zip(short, bundles, strict=True)
    ]


def _bundle_answers(options: QualityOptions, scratch: Path, on_progress: OnProgress) -> list[_Answers]:
    answers = []
    for number, (label, bundle) in enumerate(zip(labels(options.bundles), options.bundles, strict=True)):
        on_progress(f"{label}: {len(options.exam.pictures)} pictures")
        folder = scratch / f"bundle-{number}"
        task = RunTask(bundle.variant, options.arithmetic, options.exam.pictures, folder, options.cpus, options.limits)
        result = variant_run.run(task)
        answers.append(
            _Answers(
                label,
                folder,
                NetworkFacts(
                    source=bundle.source,
                    digest=bundle.variant.digest,
                    licence=bundle.license,
                    arithmetic=str(result.facts["inference_precision"]),
                    file_bytes=bundle.variant.xml.stat().st_size + bundle.variant.bin.stat().st_size,
                    seconds=result.seconds,
                    peak_mib=result.peak_mib,
                ),
            )
        )
    return answers


def _rembg_answers(options: QualityOptions, scratch: Path, on_progress: OnProgress) -> list[_Answers]:
    answers = []
    for number, network in enumerate(options.rembg):
        on_progress(f"rembg {network.session}: {len(options.exam.pictures)} pictures, in an environment of its own")
        folder = scratch / f"rembg-{number}"
        done = rembg.run(network, options.exam.pictures, folder, options.cache, options.cpus)
        answers.append(
            _Answers(
                f"rembg {network.session}",
                folder,
                NetworkFacts(
                    source=f"rembg {done.versions['rembg']}, ONNX Runtime {done.versions['onnxruntime']}",
                    digest=sha256_of(network.weights),
                    licence="",
                    arithmetic="f32",
                    file_bytes=network.weights.stat().st_size,
                    seconds=done.seconds,
                    peak_mib=done.peak_mib,
                ),
            )
        )
    return answers


def _scored(answer: _Answers, truths: Sequence[Grey], on_progress: OnProgress) -> list[Quality]:
    each, told = [], time.monotonic()
    for index, truth in enumerate(truths):
        each.append(scores.score(answer.mask(index, truth.shape), truth))
        if time.monotonic() - told > _PROGRESS_SECONDS:
            on_progress(f"{answer.label}: {index + 1} of {len(truths)} scored")
            told = time.monotonic()
    return each


def _scores(one: Quality) -> Scores:
    return Scores(
        s_measure=round(one.s_measure, 5),
        weighted_f=round(one.weighted_f, 5),
        e_measure=round(one.e_measure, 5),
        mae=round(one.mae, 6),
        iou=round(one.iou, 5),
        boundary_iou=round(one.boundary_iou, 5),
    )


def _against_rembg(
    options: QualityOptions, answers: Sequence[_Answers], truths: Sequence[Grey]
) -> list[RembgAgreement]:
    """Compare the masks of every bundle with those of every network of rembg."""
    count = len(options.bundles)
    found = []
    for answer in answers[:count]:
        for other in answers[count:]:
            shapes = [truth.shape for truth in truths]
            pairs = ((answer.mask(i, shape), other.mask(i, shape)) for i, shape in enumerate(shapes))
            agreed, worst = scores.agreement(pairs)
            found.append(
                RembgAgreement(
                    label=answer.label,
                    rembg=other.label,
                    iou=round(agreed.iou, 5),
                    worst_iou=round(worst, 5),
                    mae=round(agreed.mae, 6),
                )
            )
    return found


def _sheet_rows(pictures: int, rows: int) -> list[int]:
    """Return the indices of `rows` pictures, spread evenly."""
    count = min(pictures, rows)
    return [index * pictures // count for index in range(count)]
