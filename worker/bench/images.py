"""`worker bench images`: CPU time of decoding, resizing and encoding, per megapixel and per output option.

The reference does what scripts around such networks do: decode in full, resize with Pillow's antialiased bilinear
filter, turn the values into normalised floats as torchvision's transforms do, resize the float mask to the size of the
picture, and let Pillow write the PNG. Everything runs in this process on one core, without the network; a mask drawn
once stands in for its output. CPU time is measured because it is what inference loses. All cases take turns.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress, rotated
from worker.bench.images_report import (
    REFERENCE_CUTOUT,
    REFERENCE_MASK,
    SCHEMA_VERSION,
    CaseRow,
    ImagesReport,
    PictureResult,
)
from worker.contract.errors import ImageError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.cpu import topology
from worker.images.decode import Picture, decode
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.processes.heap import keep_memory

_MEAN, _SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in torchvision's transforms
_JPEG_QUALITY = 90
_MEGA = 1_000_000
_PICTURE_URL = "s3://bench/background"

CASES: dict[str, dict[str, Any]] = {
    "mask": {},
    "mask webp": {"format": "webp"},
    "mask max-side 1024": {"max_side": 1024},
    "cutout": {"outputs": ("cutout",)},
    "cutout refine": {"outputs": ("cutout",), "refine": True},
    "cutout threshold": {"outputs": ("cutout",), "threshold": 0.5},
    "cutout crop": {"outputs": ("cutout",), "crop": True, "crop_margin": "5%"},
    "cutout max-side 1024": {"outputs": ("cutout",), "max_side": 1024},
    "cutout webp": {"outputs": ("cutout",), "format": "webp"},
    "cutout avif": {"outputs": ("cutout",), "format": "avif"},
    "composite": {"outputs": ("composite",)},
    "composite picture": {"outputs": ("composite",), "background": _PICTURE_URL},
    "composite jpeg": {"outputs": ("composite",), "format": "jpeg"},
    "mask, cutout": {"outputs": ("mask", "cutout")},
}
"""Label -> output options other than the defaults."""

QUICK_CASES = ("mask", "cutout", "cutout refine", "composite jpeg")

Stages = tuple[float, float, float]
"""CPU seconds, in the order of `images_report.STAGES`."""


@dataclass(frozen=True)
class ImagesOptions:
    """What to measure."""

    megapixels: tuple[float, ...] = (2.0,)
    size: InputSize = InputSize.square(512)  # noqa: RUF009 -- frozen
    """Of the network input."""
    rounds: int = 5
    quick: bool = False
    """Only `QUICK_CASES`."""
    photo: Path | None = None
    """A photograph to scale to each size; a generated picture by default."""


@dataclass
class _Case:
    label: str
    options: OutputOptions | None
    """None for the reference."""

    samples: list[Stages] = field(default_factory=list)
    written: int = 0


def run(options: ImagesOptions, on_progress: OnProgress) -> ImagesReport:
    """Measure all cases at every size of picture.

    This process is pinned to one core meanwhile. From then on it keeps memory as workers do.

    Raises:
        SetupError: the photograph cannot be read.
    """
    keep_memory()  # as workers do
    affinity = os.sched_getaffinity(0)
    machine = topology.read()
    os.sched_setaffinity(0, {min(affinity)})
    try:
        results = [_measure(options, megapixels, on_progress) for megapixels in options.megapixels]
    finally:
        os.sched_setaffinity(0, affinity)
    return ImagesReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "images",
            "machine": machine_facts.facts(machine),
            "pillow": machine_facts.version("pillow"),
            "picture": options.photo.name if options.photo else "generated",
            "size": options.size.as_json(),
            "rounds": options.rounds,
            "results": results,
        }
    )


def _measure(options: ImagesOptions, megapixels: float, on_progress: OnProgress) -> PictureResult:
    """Measure all cases at one size of picture."""
    data, size = jpeg(options.photo, megapixels)
    mask = drawn_mask(options.size)
    background = Picture(generated(1600, 1200))
    labels = QUICK_CASES if options.quick else tuple(CASES)
    cases = [_Case(REFERENCE_MASK, None), _Case(REFERENCE_CUTOUT, None)]
    cases += [_Case(label, OutputOptions(**CASES[label])) for label in labels]
    by_label = {case.label: case for case in cases}
    load_before = machine_facts.load_average()
    for number in range(options.rounds + 1):  # the first round warms up and does not count
        on_progress(f"{megapixels:g} megapixels: round {number} of {options.rounds}")
        for label in rotated(list(by_label), number):
            case = by_label[label]
            stages, case.written = _turn(case, data, mask, background)
            if number:
                case.samples.append(stages)
    return {
        "megapixels": size[0] * size[1] / _MEGA,
        "width": size[0],
        "height": size[1],
        "jpeg_bytes": len(data),
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        "cases": [_case_row(case, cases, size) for case in cases],
    }


def _case_row(case: _Case, cases: Sequence[_Case], size: tuple[int, int]) -> CaseRow:
    """Return the figures of a case, compared with the reference of its kind."""
    decode_ms, resize_ms, finish_ms = (float(value) for value in np.median(np.array(case.samples), axis=0) * 1000)
    is_coloured = any(kind in case.label for kind in ("cutout", "composite"))
    reference = next(one for one in cases if one.label == (REFERENCE_CUTOUT if is_coloured else REFERENCE_MASK))
    total = _total_ms(case)
    return {
        "label": case.label,
        "options": case.options.model_dump(mode="json", exclude_defaults=True) if case.options else None,
        "decode_ms": decode_ms,
        "resize_ms": resize_ms,
        "finish_ms": finish_ms,
        "total_ms": total,
        "ms_per_megapixel": total / (size[0] * size[1] / _MEGA),
        "over_reference": total / _total_ms(reference),
        "bytes_written": case.written,
        "samples_ms": [[round(value * 1000, 3) for value in sample] for sample in case.samples],
    }


def _total_ms(case: _Case) -> float:
    """Return the median over the rounds of the CPU milliseconds of all stages together."""
    return float(np.median(np.array(case.samples).sum(1)) * 1000)


def _turn(case: _Case, data: bytes, mask: npt.NDArray[np.uint8], background: Picture) -> tuple[Stages, int]:
    """Process one picture; return CPU seconds of each stage, and bytes written."""
    if case.options is None:
        stages, content = _reference(data, mask, cutout=case.label == REFERENCE_CUTOUT)
        return stages, len(content)
    size = InputSize(*mask.shape)
    times = [time.process_time()]
    picture = decode(data, LimitSettings(), decode_target(case.options, size))
    times.append(time.process_time())
    to_tensor(picture, size)
    times.append(time.process_time())
    behind = background if case.options.background_picture else None
    written = sum(len(content) for _, content in render(picture, mask, case.options, behind)[1])
    times.append(time.process_time())
    return (times[1] - times[0], times[2] - times[1], times[3] - times[2]), written


def _reference(data: bytes, mask: npt.NDArray[np.uint8], *, cutout: bool) -> tuple[Stages, bytes]:
    """Process one picture with Pillow and NumPy alone; return CPU seconds of each stage, and the file."""
    floats = mask.astype(np.float32) / 255  # the output of the network
    times = [time.process_time()]
    image = Image.open(io.BytesIO(data)).convert("RGB")
    times.append(time.process_time())
    resized = image.resize((len(mask), len(mask)), Image.Resampling.BILINEAR)
    values = (np.asarray(resized, np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(_SCALE, np.float32)
    np.ascontiguousarray(values.transpose(2, 0, 1))
    times.append(time.process_time())
    alpha = Image.fromarray((floats * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if cutout:
        image.putalpha(alpha)
        image.save(buffer, "PNG")
    else:
        alpha.save(buffer, "PNG")
    times.append(time.process_time())
    return (times[1] - times[0], times[2] - times[1], times[3] - times[2]), buffer.getvalue()


def jpeg(photo: Path | None, megapixels: float) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG of this many megapixels, 4:3 if it is generated, and its width and height.

    Raises:
        SetupError: the photograph cannot be read.
    """
    if photo is None:
        height = round((megapixels * _MEGA * 3 / 4) ** 0.5 / 8) * 8
        image = generated(height * 4 // 3, height)
    else:
        try:
            image = decode(photo.read_bytes(), LimitSettings()).rgb
        except (OSError, ImageError) as error:
            raise SetupError(f"{photo} cannot be read as a picture: {error}") from error
        scale = (megapixels * _MEGA / (image.width * image.height)) ** 0.5
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), image.size


def generated(width: int, height: int) -> Image.Image:
    """Return a picture with the smooth parts, edges and fine grain of a photograph; always the same."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    waves = np.stack([np.sin(9 * x + 5 * y + shift) + np.cos(31 * x * y + shift) for shift in (0, 1, 2)], -1)
    patches = Image.fromarray(random.integers(0, 256, (height // 24 + 1, width // 24 + 1, 3), np.uint8))
    edges = np.asarray(patches.resize((width, height), Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(1)))
    grain = random.normal(0, 5, (height, width, 1))
    values = 110 + 35 * waves + 0.25 * (edges.astype(np.float32) - 128) + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def drawn_mask(size: InputSize) -> npt.NDArray[np.uint8]:
    """Return a mask such as a network may give: one subject with a wavy soft edge, on about a third of the picture."""
    y, x = np.mgrid[0 : size.height, 0 : size.width]
    y, x = y / size.height - 0.5, x / size.width - 0.5
    angle = np.arctan2(y, x)
    distance = np.hypot(x, y) - 0.31 - 0.03 * np.sin(9 * angle) - 0.01 * np.sin(41 * angle)
    mask: npt.NDArray[np.uint8] = (255 / (1 + np.exp((distance * 160).clip(-50, 50)))).astype(np.uint8)
    return mask
