"""JPEG, WebP and AVIF: Pillow writes them, since they need a codec. What they must show is known all the same.

The pictures are smooth, so that a codec changes them by a few levels; a wrong channel, a wrong colour space or a wrong
turn changes them by far more.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from support.picture_files import base
from support.picture_files.base import PictureFile

_LARGE = ((64, 48), (37, 51), (16, 16))
_JPEG_LEVELS, _JPEG_MEAN = 20, 3.0
_LOSSY_LEVELS, _LOSSY_MEAN = 24, 4.0


def jpeg_files(count: int = 130) -> Iterator[PictureFile]:
    """Yield JPEG files."""
    options = {
        "mode": ("grey", "YCbCr", "RGB", "CMYK", "YCCK"),
        "subsampling": (0, 1, 2),
        "progressive": (False, True),
        "restarts": (0, 2),
        "profile": (False, True),
        "orientation": (1, 1, 2, 3, 4, 5, 6, 7, 8),
        "order": ("<", ">"),
        "size": _LARGE,
    }
    for index, chosen in enumerate(base.choices(options, count, seed=4)):
        yield _jpeg(index, **chosen)


def _jpeg(
    seed: int,
    *,
    mode: str,
    subsampling: int,
    progressive: bool,
    restarts: int,
    profile: bool,
    orientation: int,
    order: str,
    size: tuple[int, int],
) -> PictureFile:
    channels = {"grey": 1, "CMYK": 4, "YCCK": 4}.get(mode, 3)
    pixels = base.smooth(size, channels, seed)
    if mode in ("CMYK", "YCCK"):
        pixels[:, :, 3] //= 3  # black hides a fault in the other inks
    stored = pixels
    if mode == "YCCK":  # the inks are stored as the YCbCr of what they leave, black as it is
        stored = np.dstack([base.to_ycbcr(255 - pixels[:, :, :3]), pixels[:, :, 3:]])
    image = Image.fromarray(stored[:, :, 0] if channels == 1 else stored, {1: "L", 3: "RGB", 4: "CMYK"}[channels])
    settings: dict[str, Any] = {"quality": 95, "progressive": progressive, "restart_marker_rows": restarts}
    settings |= {"keep_rgb": True} if mode == "RGB" else {}
    settings |= {"subsampling": subsampling} if mode == "YCbCr" else {}
    settings |= {"icc_profile": base.SRGB_PROFILE} if profile and channels == 3 else {}
    settings |= {"exif": b"Exif\0\0" + base.exif(orientation, order)} if orientation > 1 else {}
    data = _saved(image, "JPEG", **settings)
    if mode == "YCCK":
        data = _with_transform(data, 2)
    rgb = base.from_cmyk(pixels) if channels == 4 else base.as_rgb(pixels)
    return PictureFile(
        f"JPEG {mode}, subsampling {subsampling}, {'progressive, ' if progressive else ''}restarts {restarts}, "
        f"{'profile, ' if profile else ''}orientation {orientation}, {size[1]}x{size[0]}",
        data,
        base.upright(rgb, orientation),
        tolerance=_JPEG_LEVELS,
        mean_tolerance=_JPEG_MEAN,
        has_profile=profile and channels == 3,
    )


def _with_transform(data: bytes, transform: int) -> bytes:
    """Set the colour transform of the Adobe segment (ITU-T T.872, 6.5.3)."""
    at = data.index(b"Adobe\0") + 11
    return data[:at] + bytes((transform,)) + data[at + 1 :]


def webp_files(count: int = 60) -> Iterator[PictureFile]:
    """Yield WebP files."""
    options = {
        "lossless": (False, True),
        "alpha": (False, True),
        "animated": (False, False, True),
        "profile": (False, True),
        "orientation": (1, 2, 3, 4, 5, 6, 7, 8),
        "size": _LARGE,
    }
    for index, chosen in enumerate(base.choices(options, count, seed=5)):
        yield _coded("WEBP", index, **chosen)


def avif_files(count: int = 50) -> Iterator[PictureFile]:
    """Yield AVIF files."""
    options = {
        "subsampling": ("4:4:4", "4:2:2", "4:2:0", "4:0:0"),
        "alpha": (False, True),
        "profile": (False, True),
        "range": ("full", "limited"),
        "orientation": (1, 2, 3, 4, 5, 6, 7, 8),
        "size": _LARGE,
    }
    for index, chosen in enumerate(base.choices(options, count, seed=6)):
        yield _coded("AVIF", index, **chosen)


def _coded(
    kind: str,
    seed: int,
    *,
    alpha: bool,
    profile: bool,
    orientation: int,
    size: tuple[int, int],
    animated: bool = False,
    **settings: Any,
) -> PictureFile:
    lossless = settings.get("lossless", False)
    grey = settings.get("subsampling") == "4:0:0"
    pixels = base.smooth(size, 3, seed)
    if grey:
        pixels = base.as_rgb(pixels[:, :, :1])
    if lossless:
        pixels = base.noise(np.random.default_rng(seed), size, 3, 255).astype(np.uint8)
    cover = base.smooth(size, 1, seed + 1000)[:, :, 0] if alpha else None
    image = Image.fromarray(pixels if cover is None else np.dstack([pixels, cover]))
    settings |= {"quality": 95}
    settings |= {"method": 2, "exact": True} if kind == "WEBP" else {"speed": 10, "max_threads": 1}
    settings |= {"icc_profile": base.SRGB_PROFILE} if profile else {}
    settings |= {"exif": base.exif(orientation)} if orientation > 1 else {}
    if animated:
        settings |= {"save_all": True, "append_images": [image.rotate(180)], "duration": 100}
    words = ", ".join(f"{name} {value}" for name, value in settings.items() if isinstance(value, str | bool))
    return PictureFile(
        f"{kind} {words}, {'alpha, ' if alpha else ''}{'profile, ' if profile else ''}orientation {orientation}, "
        f"{size[1]}x{size[0]}",
        _saved(image, kind, **settings),
        base.upright(pixels, orientation),
        None if cover is None else base.upright(cover, orientation),
        tolerance=0 if lossless else _LOSSY_LEVELS,
        mean_tolerance=0.0 if lossless else _LOSSY_MEAN,
        has_profile=profile,
    )


def _saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()
