"""`worker bench images`: what decoding, resizing and writing cost, per megapixel and per option of outputs.

The reference is what scripts around such networks do: decode in full, resize with Pillow's antialiased bilinear filter
and turn the values into normalised floats as torchvision's transforms do, bring the float mask back to the size of the
picture and let Pillow write the PNG. Everything runs in this process on one core without the network: its answer is a
mask drawn once. CPU time is measured, since that is what is taken away from inference; all cases take turns.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import rotated
from worker.contract.errors import ImageError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.cpu import topology
from worker.images.decode import Picture, decode
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor

SCHEMA_VERSION = 1
STAGES = ("decode", "resize", "finish")
"""Bytes to pixels; pixels to what the network takes; its answer to the bytes of all outputs."""

REFERENCE_MASK = "reference: mask"
REFERENCE_CUTOUT = "reference: cutout"

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
"""Label -> options beside the defaults."""

QUICK_CASES = ("mask", "cutout", "cutout refine", "composite jpeg")

Say = Callable[[str], None]
Stages = tuple[float, float, float]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    megapixels: tuple[float, ...] = (2.0,)
    size: InputSize = InputSize.square(512)  # noqa: RUF009 -- frozen
    rounds: int = 5
    quick: bool = False
    photo: Path | None = None
    """A photograph to scale to each size; without, a generated one."""


@dataclass
class _Case:
    label: str
    options: OutputOptions | None
    """None for the reference."""

    samples: list[Stages] = field(default_factory=list)
    written: int = 0


def run(options: Options, say: Say) -> dict[str, Any]:
    """Measure.

    Args:
        options: what.
        say: told what happens, one short line at a time.

    Returns:
        The report, ready for JSON: `results` holds for each number of megapixels `width`, `height`, `jpeg_bytes` and
        `cases`, each with CPU milliseconds of every stage and together, as medians over the rounds.

    Raises:
        SetupError: the photograph cannot be used.
    """
    affinity = os.sched_getaffinity(0)
    machine = topology.read()
    os.sched_setaffinity(0, {min(affinity)})
    try:
        results = [_one(options, megapixels, say) for megapixels in options.megapixels]
    finally:
        os.sched_setaffinity(0, affinity)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "images",
        "machine": machine_facts.facts(machine),
        "pillow": machine_facts.version("pillow"),
        "picture": options.photo.name if options.photo else "generated",
        "size": options.size.as_json(),
        "rounds": options.rounds,
        "results": results,
    }


def _one(options: Options, megapixels: float, say: Say) -> dict[str, Any]:
    """All cases at one size of picture."""
    data, size = jpeg(options.photo, megapixels)
    mask = _answer(options.size)
    background = Picture(_generated(1600, 1200))
    labels = QUICK_CASES if options.quick else tuple(CASES)
    cases = [_Case(REFERENCE_MASK, None), _Case(REFERENCE_CUTOUT, None)]
    cases += [_Case(label, OutputOptions(**CASES[label])) for label in labels]
    by_label = {case.label: case for case in cases}
    load_before = machine_facts.load_average()
    for number in range(options.rounds + 1):  # the first round warms up and is dropped
        say(f"{megapixels:g} megapixels: round {number} of {options.rounds}")
        for label in rotated(list(by_label), number):
            case = by_label[label]
            stages, case.written = _turn(case, data, mask, background)
            if number:
                case.samples.append(stages)
    rows = [_row(case, size) for case in cases]
    for row in rows:
        base = rows[1] if any(kind in row["label"] for kind in ("cutout", "composite")) else rows[0]
        row["over_reference"] = row["total_ms"] / base["total_ms"]
    return {
        "megapixels": size[0] * size[1] / _MEGA,
        "width": size[0],
        "height": size[1],
        "jpeg_bytes": len(data),
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        "cases": rows,
    }


def _row(case: _Case, size: tuple[int, int]) -> dict[str, Any]:
    middle = np.median(np.array(case.samples), axis=0) * 1000
    total = float(np.median(np.array(case.samples).sum(1)) * 1000)
    return {
        "label": case.label,
        "options": case.options.model_dump(mode="json", exclude_defaults=True) if case.options else None,
        **{f"{stage}_ms": float(value) for stage, value in zip(STAGES, middle, strict=True)},
        "total_ms": total,
        "ms_per_megapixel": total / (size[0] * size[1] / _MEGA),
        "bytes_written": case.written,
        "samples_ms": [[round(value * 1000, 3) for value in sample] for sample in case.samples],
    }


def _turn(case: _Case, data: bytes, mask: npt.NDArray[np.uint8], background: Picture) -> tuple[Stages, int]:
    """CPU seconds of each stage of one picture, and bytes written."""
    if case.options is None:
        stages, content = _reference(data, mask, cutout=case.label == REFERENCE_CUTOUT)
        return stages, len(content)
    times = [time.process_time()]
    picture = decode(data, LimitSettings(), decode_target(case.options, InputSize(*mask.shape)))
    times.append(time.process_time())
    to_tensor(picture, InputSize(*mask.shape))
    times.append(time.process_time())
    behind = background if case.options.background_picture else None
    written = sum(len(content) for _, content in render(picture, mask, case.options, behind)[1])
    times.append(time.process_time())
    return (times[1] - times[0], times[2] - times[1], times[3] - times[2]), written


def _reference(data: bytes, mask: npt.NDArray[np.uint8], *, cutout: bool) -> tuple[Stages, bytes]:
    """The same by Pillow and NumPy alone."""
    floats = mask.astype(np.float32) / 255  # what the network gives
    times = [time.process_time()]
    image = Image.open(io.BytesIO(data)).convert("RGB")
    times.append(time.process_time())
    resized = image.resize(mask.shape[::-1], Image.Resampling.BILINEAR)
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
    """A JPEG of so many megapixels, 4:3 if it is generated, and its size."""
    if photo is None:
        height = round((megapixels * _MEGA * 3 / 4) ** 0.5 / 8) * 8
        image = _generated(height * 4 // 3, height)
    else:
        try:
            image = decode(photo.read_bytes(), LimitSettings()).rgb
        except (OSError, ImageError) as error:
            raise SetupError(f"{photo} cannot be measured with: {error}") from error
        scale = (megapixels * _MEGA / (image.width * image.height)) ** 0.5
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), image.size


def _generated(width: int, height: int) -> Image.Image:
    """Something with the smooth parts, edges and fine grain of a photograph; the same every time."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    waves = np.stack([np.sin(9 * x + 5 * y + shift) + np.cos(31 * x * y + shift) for shift in (0, 1, 2)], -1)
    patches = Image.fromarray(random.integers(0, 256, (height // 24 + 1, width // 24 + 1, 3), np.uint8))
    edges = np.asarray(patches.resize((width, height), Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(1)))
    grain = random.normal(0, 5, (height, width, 1))
    values = 110 + 35 * waves + 0.25 * (edges.astype(np.float32) - 128) + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _answer(size: InputSize) -> npt.NDArray[np.uint8]:
    """What a network might say: one subject with a wavy soft edge, over about a third of the picture."""
    y, x = np.mgrid[0 : size.height, 0 : size.width]
    y, x = y / size.height - 0.5, x / size.width - 0.5
    angle = np.arctan2(y, x)
    distance = np.hypot(x, y) - 0.31 - 0.03 * np.sin(9 * angle) - 0.01 * np.sin(41 * angle)
    mask: npt.NDArray[np.uint8] = (255 / (1 + np.exp((distance * 160).clip(-50, 50)))).astype(np.uint8)
    return mask
