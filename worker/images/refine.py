"""Estimate the foreground colours at soft edges, where the photograph shows a mixture with its background.

A pixel of opacity a shows I = a F + (1 - a) B. A cut-out that keeps I carries a rim of the old background onto the new
one. F is estimated by two passes of blur fusion, as in M. Forte, "Approximate Fast Foreground Colour Estimation", ICIP
2021: local means of foreground and background, weighted by opacity, are fused with the pixel itself, first over a wide
window, then over a narrow one.

The wide means are computed on a copy at an eighth of the size. The rest is computed only in tiles with soft pixels, so
the cost depends on the length of the edges and not on the area of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

_Floats = npt.NDArray[np.float32]
_Bytes = npt.NDArray[np.uint8]

_WIDE, _NARROW = 90, 7  # windows in pixels; the paper uses 90 and 6; odd windows have a centre
_REDUCTION = 8
_TILE = 128
_TINY = np.float32(1e-5)
_OPAQUE = 255


def foreground(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """Replace the colours at soft edges by estimated foreground colours.

    Args:
        rgb: mode RGB.
        alpha: mode L, same size.

    Returns:
        A new image if `alpha` has soft pixels, else `rgb` itself. Pixels of opacity 0 and 255 are unchanged.
    """
    opacity = np.asarray(alpha)
    tiles = list(_soft_tiles(opacity))
    if not tiles:
        return rgb
    colours = np.array(rgb)
    original = np.asarray(rgb)
    means = _wide_means(rgb, alpha)
    for top, left in tiles:
        target = colours[top : top + _TILE, left : left + _TILE]
        _fuse(original, opacity, means, target, (top, left))
    return Image.fromarray(colours)


def _soft_tiles(opacity: _Bytes) -> Iterator[tuple[int, int]]:
    """Yield top and left of each tile that has a soft pixel, i.e. of an opacity between 1 and 254."""
    height, width = opacity.shape
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            tile = opacity[top : top + _TILE, left : left + _TILE]
            if ((tile > 0) & (tile < _OPAQUE)).any():
                yield top, left


def _wide_means(rgb: Image.Image, alpha: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return local mean colours of foreground and background over the wide window, at 1/8 of the size, mode RGB."""
    factor = min(_REDUCTION, *rgb.size)
    image = np.asarray(rgb.reduce(factor), np.float32)
    weight = np.asarray(alpha.reduce(factor), np.float32)[..., np.newaxis] / np.float32(_OPAQUE)
    window = max(3, _WIDE // factor | 1)
    means = (_mean(image, share, window) for share in (weight, 1 - weight))
    front, back = (Image.fromarray((mean + 0.5).clip(0, 255).astype(np.uint8)) for mean in means)
    return front, back


def _fuse(
    original: _Bytes, opacity: _Bytes, means: tuple[Image.Image, Image.Image], target: _Bytes, corner: tuple[int, int]
) -> None:
    """Write the foreground colours of one tile into the soft pixels of `target`; `corner` is its top and left."""
    (height, width), (top, left) = opacity.shape, corner
    halo = _NARROW // 2
    y0, y1 = max(0, top - halo), min(height, top + _TILE + halo)
    x0, x1 = max(0, left - halo), min(width, left + _TILE + halo)
    image = original[y0:y1, x0:x1].astype(np.float32)
    weight = opacity[y0:y1, x0:x1, np.newaxis].astype(np.float32) / np.float32(_OPAQUE)
    scale_x, scale_y = means[0].width / width, means[0].height / height
    box = (x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
    front, back = (
        np.asarray(mean.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box), np.float32) for mean in means
    )
    front = _fused(image, weight, front, back)
    near_front, near_back = _mean(front, weight, _NARROW), _mean(back, 1 - weight, _NARROW)
    front = _fused(image, weight, near_front, near_back)
    inner = (slice(top - y0, top - y0 + _TILE), slice(left - x0, left - x0 + _TILE))
    soft = (weight[inner][..., 0] > 0) & (weight[inner][..., 0] < 1)
    target[soft] = (front[inner][soft] + 0.5).astype(np.uint8)


def _fused(image: _Floats, weight: _Floats, front: _Floats, back: _Floats) -> _Floats:
    """Equation 7 of the paper: the mean foreground, corrected by the residual of the mixture."""
    fused: _Floats = (front + weight * (image - weight * front - (1 - weight) * back)).clip(0, _OPAQUE)
    return fused


def _mean(values: _Floats, weight: _Floats, window: int) -> _Floats:
    """Return the mean of `values` [h, w, 3] over a square window, weighted by `weight` [h, w, 1]."""
    mean: _Floats = _box_sum(values * weight, window) / (_box_sum(weight, window) + _TINY)
    return mean


def _box_sum(values: _Floats, window: int) -> _Floats:
    """Return the sum over a square window (odd side) around each element of [h, w, c]; zero beyond the border."""
    half = window // 2
    sums = np.pad(values, ((half, half), (half, half), (0, 0)))
    return _run_sum(_run_sum(sums.swapaxes(0, 1), window).swapaxes(0, 1), window)


def _run_sum(values: _Floats, window: int) -> _Floats:
    """Return the sums of `window` consecutive rows, built from runs of 1, 2, 4, ... rows to save additions."""
    count = len(values) - window + 1
    runs, length, start = values, 1, 0
    total = np.zeros_like(values[:count])
    while True:
        if window & length:
            total += runs[start : start + count]
            start += length
        if 2 * length > window:
            return total
        runs = runs[:-length] + runs[length:]
        length *= 2
