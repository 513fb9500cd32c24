"""Subjects with alpha and photographs, taken from the sources once and kept as plain arrays.

    library/PART_KIND.npy, PART_KIND_shapes.npy     pixels of all pictures end to end; `train` or `held_out`, `subjects`
                                                    or `photographs`

What is held out is chosen by name: another version of a source moves nothing from one side to the other.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from worker.standalone.photographs import copy_photographs
from worker.training import sources

Pixels = npt.NDArray[np.uint8]

SIDE = 256
"""Longest side of a kept subject, in pixels."""
PHOTO_SIDE = 512
SURFACES = ("brick.png", "grass.png", "gravel.png", "motorcycle_left.png")
"""Photographs in scikit-image's wheel beside those of the demo; CC0."""

HELD_OUT_SUBJECTS = 0.05
"""Share of subjects that training never sees."""
HELD_OUT_PHOTOGRAPHS = ("rocket.jpg", "gravel.png", "lab", "park", "sunset", "venice")

_NO_SUBJECTS = ("special", "shapes/flowchart", "shapes/jigsaw", "computer/icons/flat", "signs_and_symbols/flags")
"""Folders of clip art that are patterns, or squares."""
_EMOJI_PIXELS = 109
"""The one size that the font's bitmaps have."""
_EMOJI_CANVAS = 136
_EMOJI_RANGES = ((0x231A, 0x2B55), (0x1F300, 0x1F6FF), (0x1F90C, 0x1FAFF))
_VIEWS = 20
"""Pictures made of one panorama."""
_WIDE = 0.25
"""Share of them that are a cut of the panorama as it is."""

_LARGEST_FILE, _MOST_PIXELS = 600_000, 30_000_000
"""Bytes and pixels of a piece of clip art; a few are posters of hundreds of megapixels."""
_LEAST_SIDE = 64
_FILLED = (0.12, 0.97)
"""Share of its own box that a subject fills."""
_SOLID = 0.6
"""Least share of a subject's area in the same area with its holes filled: outlines are no subjects."""
_CONNECTED = 0.7
"""Least share of the largest connected part."""
HALF = 128


@dataclass(frozen=True)
class Library:
    """Pictures of one side of the split."""

    subjects: Shelf
    """RGBA [h, w, 4]."""
    photographs: Shelf
    """RGB [h, w, 3]."""


class Shelf:
    """Arrays u8 [h, w, channels] of different sizes in one."""

    def __init__(self, pixels: Pixels, shapes: npt.NDArray[np.int64]) -> None:
        """Take them as `save` wrote them."""
        self._pixels, self._shapes = pixels, shapes
        self._ends = np.cumsum(shapes.prod(axis=1))

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> Pixels:
        shape, end = self._shapes[index], int(self._ends[index])
        return self._pixels[end - int(shape.prod()) : end].reshape(shape)


def load(folder: Path, part: str) -> Library:
    """One side of the split, `train` or `held_out`, mapped into memory."""

    def shelf(kind: str) -> Shelf:
        pixels = np.load(folder / f"{part}_{kind}.npy", mmap_mode="r")
        return Shelf(pixels, np.load(folder / f"{part}_{kind}_shapes.npy"))

    return Library(shelf("subjects"), shelf("photographs"))


def build(downloads: Path, folder: Path) -> dict[str, int]:
    """Write the library.

    Args:
        downloads: where the packages are, or are fetched to.
        folder: of the library.

    Returns:
        Counts by part and kind.

    Raises:
        SetupError, SourceError: see `sources.fetched`.
        StandaloneError: scikit-image is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    kinds = {"subjects": subjects(downloads), "photographs": photographs(downloads)}
    for kind, found in kinds.items():
        parts: dict[str, list[Pixels]] = {"train": [], "held_out": []}
        for held_out, pixels in found:
            parts["held_out" if held_out else "train"].append(pixels)
        for part, pictures in parts.items():
            np.save(folder / f"{part}_{kind}.npy", np.concatenate([one.reshape(-1) for one in pictures]))
            np.save(folder / f"{part}_{kind}_shapes.npy", np.array([one.shape for one in pictures], np.int64))
            counts[f"{part} {kind}"] = len(pictures)
    return counts


def is_held_out(name: str) -> bool:
    """Whether the subject of that name is never trained on."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SUBJECTS


def subjects(downloads: Path) -> Iterator[tuple[bool, Pixels]]:
    """Whether it is held out, and RGBA [h, w, 4] cut to its own box."""
    for name, image in itertools.chain(_clip_art(downloads), _emoji(downloads)):
        pixels = subject(image)
        if pixels is not None:
            yield is_held_out(name), pixels


def subject(image: Image.Image) -> Pixels | None:
    """A picture with alpha as a subject: cut to its box and scaled down; None if it is an outline, a square, dots."""
    box = image.getchannel("A").point(lambda a: 255 if a >= HALF else 0).getbbox()
    if box is None:
        return None
    cut = image.crop(box)
    if max(cut.size) < _LEAST_SIDE:
        return None
    cut.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(cut)
    inside = pixels[..., 3] >= HALF
    area = inside.sum()
    if not _FILLED[0] * inside.size <= area <= _FILLED[1] * inside.size:
        return None
    parts, count = ndimage.label(inside)
    largest = np.bincount(parts.ravel())[1:].max() if count else 0
    if largest < _CONNECTED * area or area < _SOLID * ndimage.binary_fill_holes(inside).sum():
        return None
    return pixels


def _clip_art(downloads: Path) -> Iterator[tuple[str, Image.Image]]:
    root = sources.fetched(sources.CLIP_ART, downloads) / "usr/share/openclipart/png"
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        if name.startswith(_NO_SUBJECTS) or path.stat().st_size > _LARGEST_FILE:
            continue
        with Image.open(path) as image:
            if image.width * image.height <= _MOST_PIXELS:
                yield name, image.convert("RGBA")


def _emoji(downloads: Path) -> Iterator[tuple[str, Image.Image]]:
    root = sources.fetched(sources.EMOJI, downloads)
    font = ImageFont.truetype(root / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", _EMOJI_PIXELS)
    for first, last in _EMOJI_RANGES:
        for code in range(first, last + 1):
            image = Image.new("RGBA", (_EMOJI_CANVAS, _EMOJI_CANVAS))
            ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
            yield f"emoji/{code:x}", image


def photographs(downloads: Path) -> Iterator[tuple[bool, Pixels]]:
    """Whether it is held out, and RGB [h, w, 3]."""
    for path in (*copy_photographs(downloads / "photographs"), *_surfaces()):
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        yield path.name in HELD_OUT_PHOTOGRAPHS, np.asarray(small)
    root = sources.fetched(sources.ENVIRONMENTS, downloads)
    for path in sorted((root / "package/hdri").glob("*.exr.js")):
        name = path.name.removesuffix(".exr.js")
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        panorama = _panorama(path)
        for number in range(_VIEWS):
            wide = number < _WIDE * _VIEWS
            yield name in HELD_OUT_PHOTOGRAPHS, _exposed((cut if wide else view)(panorama, rng), rng)


def _surfaces() -> Iterable[Path]:
    import skimage

    return [Path(skimage.__file__).parent / "data" / name for name in SURFACES]


def _panorama(path: Path) -> npt.NDArray[np.float32]:
    """Linear light f32 [h, 2 h, 3] of a base64-packed OpenEXR file inside a JavaScript module."""
    import OpenEXR

    packed = re.search(r"base64,([A-Za-z0-9+/=]+)", path.read_text("ascii"))
    if packed is None:
        raise ValueError(f"{path} packs no picture")
    exr = path.with_suffix("")
    exr.write_bytes(base64.b64decode(packed.group(1)))
    with OpenEXR.File(str(exr)) as opened:
        channels: Any = opened.channels()
        return np.asarray(next(iter(channels.values())).pixels[..., :3], np.float32)


def view(panorama: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A perspective photograph [SIDE, SIDE, 3] in a random direction, 60 to 110 degrees wide."""
    height, width = panorama.shape[:2]
    half = np.tan(np.radians(rng.uniform(60, 110)) / 2)
    yaw, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-30, 25))
    y, x = np.mgrid[half : -half : SIDE * 1j, -half : half : SIDE * 1j]
    up = y * np.cos(pitch) + np.sin(pitch)
    ahead = np.cos(pitch) - y * np.sin(pitch)
    longitude = np.arctan2(x, ahead) + yaw
    latitude = np.arctan2(up, np.hypot(x, ahead))
    rows, columns = (0.5 - latitude / np.pi) * (height - 1), longitude / (2 * np.pi) * width
    planes = [ndimage.map_coordinates(panorama[..., c], [rows, columns], order=1, mode="grid-wrap") for c in range(3)]
    return np.stack(planes, axis=-1)


def cut(panorama: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The panorama at its own resolution, bent but sharp: [h, h, 3] from a random direction."""
    height = panorama.shape[0]
    return np.roll(panorama, int(rng.integers(panorama.shape[1])), axis=1)[:, :height]


def _exposed(linear: npt.NDArray[np.float32], rng: np.random.Generator) -> Pixels:
    """Light to sRGB bytes, exposed so that a random share of the picture is burnt out at most."""
    bright = np.percentile(linear, rng.uniform(85, 99))
    return np.rint(np.clip(linear / max(float(bright), 1e-6), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def as_png(pixels: Pixels) -> bytes:
    """For people to look at."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
