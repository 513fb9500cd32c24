"""Backgrounds of composites: crops of photographs and drawn patterns.

`backdrop` and `photograph` return u8 `[side, side, 3]`. The drawn kinds return floats `[side, side, 3]` on the scale
0 to 255, not clipped; `noise` returns one plane between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.training.library import Library, Pixels

Rng = np.random.Generator
Floats = npt.NDArray[np.floating[Any]]

PHOTOGRAPH = 0.6
"""Share of backgrounds that are photographs; the others are drawn."""
_OCTAVES = 5
_DOTS = 2
"""Kind in `pattern`; 0 is stripes, 1 is checks."""


def chance(rng: Rng, share: float) -> bool:
    """Return True with probability `share`."""
    return bool(rng.random() < share)


def backdrop(library: Library, side: int, rng: Rng) -> Pixels:
    """Draw a background of a random kind: u8 `[side, side, 3]`."""
    if chance(rng, PHOTOGRAPH):
        return photograph(library, side, rng)
    drawn: tuple[Callable[[int, Rng], Floats], ...] = (gradient, studio, clouds, clouds, pattern)
    pixels = drawn[rng.integers(len(drawn))](side, rng)
    if chance(rng, 0.3):
        pixels = pixels + rng.normal(0, rng.uniform(2, 14), (side, side, 1)).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def photograph(library: Library, side: int, rng: Rng) -> Pixels:
    """Crop a random photograph to u8 `[side, side, 3]`, at random mirrored or tiled 2 x 2 for finer detail."""
    pixels = library.photographs[int(rng.integers(len(library.photographs)))]
    height, width = pixels.shape[:2]
    share = rng.uniform(0.35, 1.0)
    h, w = max(16, int(height * share)), max(16, int(width * min(1.0, share * rng.uniform(0.8, 1.25))))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    cut = Image.fromarray(np.ascontiguousarray(pixels[top : top + h, left : left + w]))
    if chance(rng, 0.25):
        half = np.asarray(cut.resize((side // 2, side // 2), Image.Resampling.BILINEAR))
        row = np.concatenate([half, half[:, ::-1]], axis=1)
        whole = np.concatenate([row, row[::-1]], axis=0)
        found = np.asarray(Image.fromarray(whole).resize((side, side), Image.Resampling.NEAREST))
    else:
        found = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(found[:, ::-1]) if chance(rng, 0.5) else found


def colour(rng: Rng) -> npt.NDArray[np.float32]:
    """Draw an RGB colour; pale and dark colours are as frequent as bright ones."""
    grey = rng.uniform(0, 255)
    made: npt.NDArray[np.float32] = np.clip(grey + rng.normal(0, 1, 3) * rng.choice((6, 30, 80)), 0, 255).astype("f4")
    return made


def gradient(side: int, rng: Rng) -> Floats:
    """Draw a linear or radial gradient between two colours."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    if chance(rng, 0.3):
        along = np.clip(np.hypot(x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)), 0, 1.5) / 1.5
    else:
        along = (np.cos(turn) * x + np.sin(turn) * y) / 2.9 + 0.5
    first = colour(rng)
    second = first + rng.normal(0, 12, 3) if chance(rng, 0.5) else colour(rng)
    pixels: Floats = (first + (second - first) * along[..., None]).astype(np.float32)
    return pixels


def studio(side: int, rng: Rng) -> Floats:
    """Draw a wall above a floor, with a sharp or soft edge between them."""
    wall, floor = gradient(side, rng), gradient(side, rng)
    edge = side * rng.uniform(0.45, 0.85)
    soft = rng.choice((0.7, 6.0, 30.0)) * side / 256
    rows = np.arange(side, dtype=np.float32)[:, None, None]
    tilt = np.arange(side, dtype=np.float32)[None, :, None] * rng.normal(0, 0.05)
    share: Floats = 1 / (1 + np.exp(-np.clip((rows + tilt - edge) / soft, -30, 30)))
    return wall * (1 - share) + floor * share


def clouds(side: int, rng: Rng) -> Floats:
    """Mix two or three colours by fractal noise, which resembles stone, cloth or leaves."""
    values = noise(side, rng, roughness=rng.uniform(0.45, 1.0))
    first, second = colour(rng), colour(rng)
    pixels = first + (second - first) * values[..., None]
    if chance(rng, 0.5):
        other = noise(side, rng, roughness=rng.uniform(0.45, 1.0))[..., None]
        pixels = pixels * (1 - other) + colour(rng) * other
    return pixels.astype(np.float32)


def noise(side: int, rng: Rng, *, roughness: float) -> Floats:
    """Sum random grids, each twice as fine as the last: `[side, side]`, scaled to run from 0 to 1.

    Args:
        side: in pixels.
        rng: source of randomness.
        roughness: weight of each grid relative to the previous, coarser one.
    """
    total = np.zeros((side, side), np.float32)
    cells, weight = int(rng.integers(2, 6)), 1.0
    stretch = int(rng.choice((1, 1, 1, 3)))
    for _ in range(_OCTAVES):
        grid = rng.random((cells, cells * stretch), np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
        cells, weight = cells * 2, weight * roughness
    low, high = total.min(), total.max()
    values: Floats = (total - low) / max(float(high - low), 1e-6)
    return values


def pattern(side: int, rng: Rng) -> Floats:
    """Draw stripes, checks or dots, from which the network learns that a strong pattern is not a subject."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), side / rng.uniform(4, 30)
    u, v = (np.cos(turn) * x + np.sin(turn) * y) / period, (-np.sin(turn) * x + np.cos(turn) * y) / period
    kind = rng.integers(3)
    wave = np.sin(2 * np.pi * u) if kind == 0 else np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)
    if kind == _DOTS:
        wave = np.hypot(u % 1 - 0.5, v % 1 - 0.5) * 4 - 1
    share: Floats = np.clip(wave * rng.choice((1.0, 8.0)) / 2 + 0.5, 0, 1)[..., None]
    return (gradient(side, rng) * (1 - share) + gradient(side, rng) * share).astype(np.float32)
