"""Subjects with alpha and photographs, extracted once from the source packages and stored as plain arrays.

    library/PART_KIND.npy           pixels of all pictures end to end; PART is `train` or `held_out`,
                                    KIND is `subjects` or `photographs`
    library/PART_KIND_shapes.npy    shape of each picture

The held-out part is chosen by name, so a new version of a package moves no picture from one part to the other.
"""

from __future__ import annotations

import base64
import hashlib
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
LinearLight = npt.NDArray[np.float32]

SIDE = 256
"""Longest side of a stored subject, and side of a perspective view, in pixels."""
PHOTO_SIDE = 512
"""Longest side of a stored photograph, in pixels."""
SURFACES = ("brick.png", "grass.png", "gravel.png", "motorcycle_left.png")
"""Photographs in scikit-image's wheel besides those of the demo; CC0."""

HELD_OUT_SUBJECTS = 0.05
"""Share of subjects held out from training."""
HELD_OUT_PHOTOGRAPHS = ("rocket.jpg", "gravel.png", "lab", "park", "sunset", "venice")

_EXCLUDED_CLIP_ART = (
    "special",
    "shapes/flowchart",
    "shapes/jigsaw",
    "computer/icons/flat",
    "signs_and_symbols/flags",
)
"""Clip-art folders that hold patterns or squares instead of subjects."""
_EMOJI_PIXELS = 109
"""The only size of the font's bitmaps."""
_EMOJI_CANVAS = 136
_EMOJI_RANGES = ((0x231A, 0x2B55), (0x1F300, 0x1F6FF), (0x1F90C, 0x1FAFF))
"""First and last code points."""
_VIEWS = 20
"""Pictures made from one panorama."""
_WIDE = 0.25
"""Share of them that are unprojected crops."""

_LARGEST_FILE, _MOST_PIXELS = 600_000, 30_000_000
"""Limits on clip art in bytes and pixels; a few files are posters of hundreds of megapixels."""
_LEAST_SIDE = 64
"""Least size of a subject's longer side in pixels, before it is scaled down."""
_FILLED = (0.12, 0.97)
"""Share of its bounding box that a subject fills."""
_SOLID = 0.6
"""Least ratio of a subject's area to its area with holes filled; an outline has less."""
_CONNECTED = 0.7
"""Least share of a subject's area in its largest connected part."""
HALF = 128
"""Alpha from which a pixel belongs to the subject."""


class PackedPictures:
    """Arrays u8 `[h, w, channels]` of different sizes, stored end to end in one array."""

    def __init__(self, pixels: Pixels, shapes: npt.NDArray[np.int64]) -> None:
        """Wrap arrays as `build` stores them.

        Args:
            pixels: all pictures, flat and end to end.
            shapes: `[n, 3]`.
        """
        self._pixels, self._shapes = pixels, shapes
        self._ends = np.cumsum(shapes.prod(axis=1))

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> Pixels:
        shape, end = self._shapes[index], int(self._ends[index])
        return self._pixels[end - int(shape.prod()) : end].reshape(shape)


@dataclass(frozen=True)
class Library:
    """The pictures of one part of the split."""

    subjects: PackedPictures
    """RGBA `[h, w, 4]`."""
    photographs: PackedPictures
    """RGB `[h, w, 3]`."""


def load(folder: Path, part: str) -> Library:
    """Map one part of the library into memory.

    Args:
        folder: of the library.
        part: `train` or `held_out`.
    """

    def packed(kind: str) -> PackedPictures:
        pixels = np.load(folder / f"{part}_{kind}.npy", mmap_mode="r")
        return PackedPictures(pixels, np.load(folder / f"{part}_{kind}_shapes.npy"))

    return Library(packed("subjects"), packed("photographs"))


def build(downloads: Path, folder: Path) -> dict[str, int]:
    """Write the library.

    Args:
        downloads: folder of the packages, which are fetched if missing.
        folder: of the library.

    Returns:
        The number of pictures by part and kind.

    Raises:
        SetupError, SourceError: see `sources.fetch`.
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
    """Return whether the subject of that name is held out from training; decided by a hash of the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SUBJECTS


def subjects(downloads: Path) -> Iterator[tuple[bool, Pixels]]:
    """Yield for each subject whether it is held out, and its RGBA `[h, w, 4]` cropped to its bounding box."""
    for name, image in itertools.chain(_clip_art(downloads), _emoji(downloads)):
        pixels = extract_subject(image)
        if pixels is not None:
            yield is_held_out(name), pixels


def extract_subject(image: Image.Image) -> Pixels | None:
    """Crop an RGBA picture to its subject and scale it down to `SIDE`.

    Returns:
        RGBA `[h, w, 4]`, or None if the picture is empty, too small, an outline, a filled box or scattered parts.
    """
    box = image.getchannel("A").point(lambda a: 255 if a >= HALF else 0).getbbox()
    if box is None:
        return None
    cropped = image.crop(box)
    if max(cropped.size) < _LEAST_SIDE:
        return None
    cropped.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(cropped)
    return pixels if _is_subject(pixels[..., 3] >= HALF) else None


def _is_subject(inside: npt.NDArray[np.bool_]) -> bool:
    """Return whether a silhouette `[h, w]` is solid, mostly connected, and fills part of its box but not all of it."""
    area = inside.sum()
    if not _FILLED[0] * inside.size <= area <= _FILLED[1] * inside.size:
        return False
    parts, count = ndimage.label(inside)
    largest = np.bincount(parts.ravel())[1:].max() if count else 0
    return bool(largest >= _CONNECTED * area and area >= _SOLID * ndimage.binary_fill_holes(inside).sum())


def _clip_art(downloads: Path) -> Iterator[tuple[str, Image.Image]]:
    root = sources.fetch(sources.CLIP_ART, downloads) / "usr/share/openclipart/png"
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        if name.startswith(_EXCLUDED_CLIP_ART) or path.stat().st_size > _LARGEST_FILE:
            continue
        with Image.open(path) as image:
            if image.width * image.height <= _MOST_PIXELS:
                yield name, image.convert("RGBA")


def _emoji(downloads: Path) -> Iterator[tuple[str, Image.Image]]:
    root = sources.fetch(sources.EMOJI, downloads)
    font = ImageFont.truetype(root / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", _EMOJI_PIXELS)
    for first, last in _EMOJI_RANGES:
        for code in range(first, last + 1):
            image = Image.new("RGBA", (_EMOJI_CANVAS, _EMOJI_CANVAS))
            ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
            yield f"emoji/{code:x}", image


def photographs(downloads: Path) -> Iterator[tuple[bool, Pixels]]:
    """Yield for each photograph and panorama view whether it is held out, and its RGB `[h, w, 3]`."""
    for path in (*copy_photographs(downloads / "photographs"), *_surfaces()):
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        yield path.name in HELD_OUT_PHOTOGRAPHS, np.asarray(small)
    root = sources.fetch(sources.ENVIRONMENTS, downloads)
    for path in sorted((root / "package/hdri").glob("*.exr.js")):
        name = path.name.removesuffix(".exr.js")
        for pixels in _views(name, _panorama(path)):
            yield name in HELD_OUT_PHOTOGRAPHS, pixels


def _surfaces() -> Iterable[Path]:
    import skimage

    return [Path(skimage.__file__).parent / "data" / name for name in SURFACES]


def _panorama(path: Path) -> LinearLight:
    """Read linear light f32 `[h, 2 h, 3]` from a base64-encoded OpenEXR file inside a JavaScript module."""
    import OpenEXR

    packed = re.search(r"base64,([A-Za-z0-9+/=]+)", path.read_text("ascii"))
    if packed is None:
        raise ValueError(f"{path} contains no base64-encoded picture")
    exr = path.with_suffix("")
    exr.write_bytes(base64.b64decode(packed.group(1)))
    with OpenEXR.File(str(exr)) as opened:
        channels: Any = opened.channels()
        return np.asarray(next(iter(channels.values())).pixels[..., :3], np.float32)


def _views(name: str, panorama: LinearLight) -> Iterator[Pixels]:
    """Make `_VIEWS` pictures of a panorama; the same name gives the same views."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    for number in range(_VIEWS):
        make = square_crop if number < _WIDE * _VIEWS else perspective_view
        yield _exposed(make(panorama, rng), rng)


def perspective_view(panorama: LinearLight, rng: np.random.Generator) -> LinearLight:
    """Project a perspective view `[SIDE, SIDE, 3]` in a random direction, with a field of 60 to 110 degrees."""
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


def square_crop(panorama: LinearLight, rng: np.random.Generator) -> LinearLight:
    """Crop `[h, h, 3]` in a random direction at the panorama's own resolution: distorted but sharp."""
    height = panorama.shape[0]
    return np.roll(panorama, int(rng.integers(panorama.shape[1])), axis=1)[:, :height]


def _exposed(linear: LinearLight, rng: np.random.Generator) -> Pixels:
    """Convert linear light to sRGB bytes, with an exposure that clips a random 1 to 15 % of the values."""
    bright = np.percentile(linear, rng.uniform(85, 99))
    return np.rint(np.clip(linear / max(float(bright), 1e-6), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
