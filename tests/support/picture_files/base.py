"""What all formats share: pixels, orientation, EXIF, and the description of a file."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageCms

Bytes = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.uint16]

SIZES = ((17, 23), (23, 17), (1, 1), (1, 9), (8, 8), (5, 33))
"""Height and width in pixels: odd ones, single rows, whole blocks of 8."""

ORIENTATION = 274
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@dataclass(frozen=True)
class PictureFile:
    """A file and what a reader must find in it."""

    name: str
    """Its kind in words."""

    data: bytes
    rgb: Bytes | None
    """Upright colours [height, width, 3]; None if the file must be refused."""

    alpha: Bytes | None = None
    """Upright transparency [height, width]; None if the picture is opaque."""

    known: npt.NDArray[np.bool_] | None = None
    """Where the format defines a colour [height, width]; None: everywhere."""

    tolerance: int = 0
    """Largest difference of a value of `rgb` or `alpha`, in levels of 255."""

    mean_tolerance: float = 0.0
    """Largest mean difference, of files with a tolerance."""

    has_profile: bool | None = None
    """Whether the picture must have an ICC profile; None: either."""

    may_be_refused: bool = False
    """Whether the reader may say instead that it does not support this kind."""

    stored: Levels | None = None
    """What the file stores [height, width, samples], for another reader to compare."""


def choices(options: Mapping[str, Sequence[Any]], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield `count` different combinations of options; each value of an option comes about equally often."""
    product = list(itertools.product(*options.values()))
    generator = np.random.default_rng(seed)
    for index in generator.permutation(len(product))[:count]:
        yield dict(zip(options, product[index], strict=True))


def noise(generator: np.random.Generator, size: tuple[int, int], channels: int, most: int) -> Levels:
    """Return random levels from 0 to `most` [height, width, channels], with both ends among them."""
    levels: Levels = generator.integers(0, most + 1, (*size, channels)).astype(np.uint16)
    levels.reshape(-1)[:: max(1, levels.size // 7)] = most
    levels.reshape(-1)[1 :: max(2, levels.size // 5)] = 0
    return levels


def smooth(size: tuple[int, int], channels: int, seed: int) -> Bytes:
    """Return slow gradients, a different one in each channel and direction, which lossy codecs keep to a few levels."""
    generator = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 1, count)[:, None] for count in size)
    planes = []
    for _ in range(channels):
        down, right, bend = generator.uniform(-1, 1, 3)
        plane = down * rows + right * columns.T + bend * rows * columns.T
        spread = float(np.ptp(plane)) or 1.0
        planes.append(40 + 170 * (plane - plane.min()) / spread)
    return np.stack(planes, axis=2).round().astype(np.uint8)


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn pixels [height, width, ...] as EXIF says: 1 is upright, 6 a quarter turn clockwise."""
    flat = pixels if orientation < 5 else pixels.swapaxes(0, 1)
    rows, columns = {
        1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1),
    }[orientation]  # fmt: skip
    return np.ascontiguousarray(flat[::rows, ::columns])


def exif(orientation: int, order: str = "<") -> bytes:
    """Return EXIF that begins with its TIFF header: a maker, the orientation and a resolution."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    maker = b"Maker of cameras\0"
    rows = [
        (271, 2, len(maker), struct.pack(f"{order}I", 8 + 2 + 3 * 12 + 4)),
        (ORIENTATION, 3, 1, struct.pack(f"{order}HH", orientation, 0)),
        (296, 3, 1, struct.pack(f"{order}HH", 2, 0)),
    ]
    body = b"".join(struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in rows)
    return head + struct.pack(f"{order}H", len(rows)) + body + bytes(4) + maker


def packed_rows(levels: Levels, bits: int, order: str = ">") -> list[bytes]:
    """Return each row [width, channels] as bytes, `bits` per value, the first value in the highest bits.

    Rows end at a byte. Values of 16 bits are in byte order `order`.
    """
    rows = levels.reshape(len(levels), -1)
    if bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in rows]
    if bits == 8:
        return [row.astype(np.uint8).tobytes() for row in rows]
    positions = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> positions & 1).astype(np.uint8)).tobytes() for row in rows]


def to_8_bits(levels: Levels, bits: int, *, grey: bool) -> Bytes:
    """Return levels of `bits` bits as levels of 255, by the rules that `worker.images.colour` documents."""
    if bits == 16 and not grey:
        return (levels >> 8).astype(np.uint8)
    most = (1 << bits) - 1
    return ((levels.astype(np.uint32) * 510 + most) // (2 * most)).astype(np.uint8)


def opaque_as_none(alpha: Bytes | None) -> Bytes | None:
    """Return None in place of an alpha that is 255 everywhere."""
    return None if alpha is None or (alpha == 255).all() else alpha


def as_rgb(grey_or_rgb: Bytes) -> Bytes:
    """Repeat one channel three times."""
    return np.ascontiguousarray(np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3)))


def from_cmyk(inks: Bytes) -> Bytes:
    """Convert by the plain formula: each ink and black take light away."""
    paper = 255 - inks.astype(np.float64)
    return np.rint(paper[:, :, :3] * paper[:, :, 3:] / 255).astype(np.uint8)


def from_ycbcr(values: npt.NDArray[Any]) -> Bytes:
    """Convert by ITU-R BT.601, full range (TIFF 6.0, section 21; JFIF)."""
    y, cb, cr = (values[:, :, at].astype(np.float64) - (0, 128, 128)[at] for at in range(3))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def to_ycbcr(rgb: Bytes) -> Bytes:
    """Convert by ITU-R BT.601, full range."""
    red, green, blue = (rgb[:, :, at].astype(np.float64) for at in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    values = np.stack([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402], axis=2)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
