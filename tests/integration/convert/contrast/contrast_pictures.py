"""Seeded pictures with a known mask: textured shapes on plain, shaded and noisy backgrounds.

A picture is drawn at twice its size and averaged down, so that edges are anti-aliased like a camera's. Before noise,
subject and background differ by at least `MIN_DELTA_E` in CIELAB (CIE76) at every pixel of the subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

MIN_DELTA_E = 20.0

FAMILIES = ("flat", "linear", "radial", "vignette", "noisy", "several", "border", "shadow", "weak")


@dataclass(frozen=True)
class Picture:
    """Pixels u8 `[H, W, 3]` and true mask bool `[H, W]`."""

    pixels: np.ndarray
    truth: np.ndarray


def picture(family: str, seed: int, width: int = 320, height: int = 320) -> Picture:
    """Draw one picture of a family; the same arguments give the same pixels."""
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    coverage = _shapes(rng, family, width, height)
    backdrop = _backdrop(rng, family, width, height)
    subject = _subject(rng, backdrop, coverage > 0, weak=family == "weak")
    if family == "shadow":
        backdrop = backdrop * _shadow(rng, coverage)[..., None]
    pixels = subject * coverage[..., None] + backdrop * (1 - coverage[..., None])
    sigma = rng.uniform(8, 12) if family in ("noisy", "weak") else rng.uniform(0, 6)
    pixels = pixels + rng.normal(0, sigma, pixels.shape)
    return Picture(pixels.round().clip(0, 255).astype(np.uint8), coverage >= 0.5)


def delta_e(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the CIE76 colour difference of sRGB values on 0-255, over the last axis."""
    return np.linalg.norm(lab(a) - lab(b), axis=-1)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Compute the intersection over union of two bool arrays; 1 if both are empty."""
    union = np.logical_or(mask, truth).sum()
    return float(np.logical_and(mask, truth).sum() / union) if union else 1.0


def lab(rgb: np.ndarray) -> np.ndarray:
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear @ (matrix / matrix.sum(axis=1, keepdims=True)).T
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def _plane(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel centres on [-1, 1] in both directions."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
    return x, y


# -- shapes --------------------------------------------------------------------------------------------------------


def _shapes(rng: np.random.Generator, family: str, width: int, height: int) -> np.ndarray:
    """Draw the coverage `[H, W]` of the subject in 0..1, between 3 and 55 % of the picture."""
    while True:
        canvas = Image.new("L", (2 * width, 2 * height))
        for _ in range(int(rng.integers(2, 5)) if family == "several" else 1):
            _draw_shape(rng, canvas, family)
        coverage = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.float64) / 255
        if 0.03 <= coverage.mean() <= 0.55:
            return coverage


def _draw_shape(rng: np.random.Generator, canvas: Image.Image, family: str) -> None:
    side = min(canvas.size)
    reach = side * (rng.uniform(0.08, 0.18) if family == "several" else rng.uniform(0.15, 0.36))
    margin = reach + 0.06 * side
    centre = np.array([rng.uniform(margin, length - margin) for length in canvas.size])
    if family == "border":
        axis, far = int(rng.integers(2)), bool(rng.integers(2))
        centre[axis] = canvas.size[axis] - reach * 0.5 if far else reach * 0.5
    outline = (_ellipse, _polygon, _star, _rounded)[int(rng.integers(4))](rng)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = centre + reach * outline @ rotation.T
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=255)


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return np.stack([np.cos(angle), rng.uniform(0.5, 1.0) * np.sin(angle)], axis=1)


def _polygon(rng: np.random.Generator) -> np.ndarray:
    corners = int(rng.integers(3, 9))
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return rng.uniform(0.7, 1.0, (corners, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star(rng: np.random.Generator) -> np.ndarray:
    rays = int(rng.integers(4, 8))
    angle = np.arange(2 * rays) * np.pi / rays
    radius = np.where(np.arange(2 * rays) % 2, rng.uniform(0.4, 0.7), 1.0)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _rounded(rng: np.random.Generator) -> np.ndarray:
    """Return a superellipse |x|^n + |y|^n = 1, a rectangle with round corners."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    power = 2 / rng.uniform(4, 8)
    x, y = np.cos(angle), np.sin(angle)
    points = np.stack([np.sign(x) * abs(x) ** power, rng.uniform(0.4, 1) * np.sign(y) * abs(y) ** power], axis=1)
    return points / np.linalg.norm(points, axis=1).max()


# -- colours -------------------------------------------------------------------------------------------------------


def _backdrop(rng: np.random.Generator, family: str, width: int, height: int) -> np.ndarray:
    """Draw the background, `[H, W, 3]` on 0-255."""
    x, y = _plane(width, height)
    first = rng.uniform(20, 235, 3)
    if family in ("flat", "vignette", "shadow", "weak"):
        ramp = np.zeros_like(x)
    elif family == "radial":
        ramp = np.hypot(x - rng.uniform(-0.3, 0.3), y - rng.uniform(-0.3, 0.3)) / np.sqrt(2)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = (x * np.cos(angle) + y * np.sin(angle)) / (2 * np.sqrt(2)) + 0.5
    second = (first + rng.uniform(-90, 90, 3)).clip(10, 245)
    colour = first + (second - first) * ramp.clip(0, 1)[..., None]
    if family == "vignette":
        colour = colour * (1 - rng.uniform(0.1, 0.35) * (x * x + y * y) / 2)[..., None]
    return colour


def _subject(rng: np.random.Generator, backdrop: np.ndarray, where: np.ndarray, *, weak: bool) -> np.ndarray:
    """Draw the subject, `[H, W, 3]`: one colour, or two mixed by a pattern; if weak, one close to the background."""
    height, width, _ = backdrop.shape
    kinds = (_even,) if weak else (_even, _stripes, _checks, _ramp, _clouds)
    pattern = kinds[int(rng.integers(len(kinds)))](rng, width, height)[..., None]
    most = 1.5 * MIN_DELTA_E if weak else np.inf
    sample = backdrop[where]
    while True:
        one = (sample.mean(axis=0) + rng.uniform(-60, 60, 3)).clip(0, 255) if weak else rng.uniform(0, 255, 3)
        two = (one + rng.uniform(-70, 70, 3)).clip(0, 255)
        colour = one + (two - one) * pattern
        apart = delta_e(colour[where], sample)
        if apart.min() >= MIN_DELTA_E and apart.mean() <= most:
            return colour


def _even(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return np.zeros((height, width))


def _phase(rng: np.random.Generator, width: int, height: int) -> Callable[[float], np.ndarray]:
    x, y = _plane(width, height)
    frequency = rng.uniform(15, 50)
    return lambda turn: np.sin(frequency * (x * np.cos(turn) + y * np.sin(turn)))


def _stripes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return (_phase(rng, width, height)(rng.uniform(0, np.pi)) > 0).astype(float)


def _checks(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    wave, turn = _phase(rng, width, height), rng.uniform(0, np.pi)
    return (wave(turn) * wave(turn + np.pi / 2) > 0).astype(float)


def _ramp(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _plane(width, height)
    turn = rng.uniform(0, 2 * np.pi)
    return ((x * np.cos(turn) + y * np.sin(turn)) / 2 + 0.5).clip(0, 1)


def _clouds(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    coarse = Image.fromarray(rng.uniform(0, 255, (12, 12)).astype(np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 255


def _shadow(rng: np.random.Generator, coverage: np.ndarray) -> np.ndarray:
    """Return factors `[H, W]` of a shadow: the subject's outline, moved, blurred and 10 to 25 % darker."""
    height, width = coverage.shape
    shift = [int(rng.choice((-1, 1)) * rng.uniform(0.02, 0.06) * length) for length in (height, width)]
    moved = Image.fromarray((np.roll(coverage, shift, (0, 1)) * 255).astype(np.uint8))
    blurred = moved.filter(ImageFilter.GaussianBlur(0.03 * min(width, height)))
    return 1 - rng.uniform(0.1, 0.25) * np.asarray(blurred, np.float64) / 255
