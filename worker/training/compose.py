"""Compose one training picture and its true mask: subjects in front of a background, as a camera might see them.

    backdrop ── shadow ── subject: clip art, or its outline filled with a photograph, shaded ── blur, noise, JPEG

A composite depends only on the seed and its number, so training can resume anywhere and use any number of processes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from worker.training.backdrops import Floats, Rng, backdrop, chance, colour, gradient, noise, photograph
from worker.training.library import Library, Pixels

_TEXTURED = 0.5
"""Share of subjects whose outline is filled with a photograph or a texture and shaded like a solid body."""
_COUNTS = (0.78, 0.16, 0.06)
"""Probabilities of one, two and three subjects."""
_LEAST_AREA, _MOST_AREA = 0.02, 0.85
"""Bounds on the share of the picture that the subjects cover."""
_TRIES = 4
"""Attempts to place a subject within these bounds."""
_SMALL = 0.6
"""Scale below which a subject is averaged down before the affine transform, which does not average."""


@dataclass(frozen=True)
class Composite:
    """A composed picture and its true mask."""

    pixels: Pixels
    """u8 `[side, side, 3]`."""
    alpha: Pixels
    """u8 `[side, side]`."""


def composite(library: Library, side: int, seed: int, number: int, *, crowded: float = 0.0) -> Composite:
    """Return composite `number` of the series `seed`.

    Args:
        library: subjects and photographs.
        side: of the picture, in pixels.
        seed: of the whole series.
        number: of this composite in the series.
        crowded: share of backgrounds drawn by `crowd`.
    """
    rng = np.random.default_rng((seed, number))
    ground = crowd(library, side, rng) if crowded and chance(rng, crowded) else backdrop(library, side, rng)
    if chance(rng, 0.3):
        ground = _blurred(ground, rng.uniform(0.5, 4) * side / 256)
    pixels = ground.astype(np.float32)
    alpha = np.zeros((side, side), np.float32)
    for _ in range(1 + int(rng.choice(3, p=_COUNTS))):
        pixels, alpha = _with_subject(library, pixels, alpha, rng)
    return Composite(_camera(pixels, rng), np.rint(alpha * 255).astype(np.uint8))


def crowd(library: Library, side: int, rng: Rng) -> Pixels:
    """Draw a background of large overlapping shapes that extend past the border, as petals do in a close-up.

    However bright, these shapes are background: the subject lies whole in front of them.

    Returns:
        u8 `[side, side, 3]`.
    """
    pixels: Floats = backdrop(library, side, rng).astype(np.float32)
    for _ in range(int(rng.integers(2, 8))):
        shape = library.subjects[int(rng.integers(len(library.subjects)))]
        placed = _placed(shape, side, rng, reach=(0.8, 2.5), spread=0.4)
        share = placed[..., 3:].astype(np.float32) / 255
        body = gradient(side, rng) if chance(rng, 0.6) else _relit(placed[..., :3].astype(np.float32), rng)
        pixels = np.clip(body, 0, 255) * share + pixels * (1 - share)
    composed = pixels.astype(np.uint8)
    return _blurred(composed, rng.uniform(0.5, 5) * side / 256) if chance(rng, 0.5) else composed


def _with_subject(library: Library, pixels: Floats, alpha: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """Add one subject to the picture and the mask; leave both unchanged if no attempt to place one succeeds."""
    placed = _within_bounds(library, alpha, rng)
    if placed is None:
        return pixels, alpha
    own = placed[..., 3].astype(np.float32) / 255
    if chance(rng, 0.15):
        own = own * rng.uniform(0.85, 1.0)
    body = placed[..., :3].astype(np.float32)
    if chance(rng, _TEXTURED):
        body = _textured(library, body, own, rng)
    body = _relit(body, rng)
    if chance(rng, 0.25):  # camouflage: colours like those around the subject
        mean = (body * own[..., None]).sum((0, 1)) / max(float(own.sum()), 1)
        body = body + (pixels.mean((0, 1)) - mean) * rng.uniform(0.3, 0.9)
    if chance(rng, 0.35):
        pixels = pixels * (1 - _shadow(own, rng)[..., None])
    if chance(rng, 0.6):
        own = np.asarray(_gauss(own, rng.uniform(0.3, 1.1)), np.float32)
    share = own[..., None]
    mixed = np.clip(body, 0, 255) * share + pixels * (1 - share)
    return mixed.astype(np.float32), 1 - (1 - alpha) * (1 - own)


def _within_bounds(library: Library, alpha: Floats, rng: Rng) -> Pixels | None:
    """Place a random subject so that the subjects cover neither too little nor too much of the picture.

    Returns:
        RGBA `[side, side, 4]`, or None after `_TRIES` attempts.
    """
    for _ in range(_TRIES):
        placed = _placed(library.subjects[int(rng.integers(len(library.subjects)))], len(alpha), rng)
        own = placed[..., 3].astype(np.float32) / 255
        area = float(np.maximum(own, alpha).mean())
        if _LEAST_AREA <= area <= _MOST_AREA and own.mean() >= _LEAST_AREA / 2:
            return placed
    return None


def _placed(
    subject: Pixels, side: int, rng: Rng, *, reach: tuple[float, float] = (0.3, 1.05), spread: float = 0.1
) -> Pixels:
    """Scale, rotate, stretch, mirror, shear and shift a subject, possibly past the border: RGBA `[side, side, 4]`.

    Args:
        subject: RGBA `[h, w, 4]`.
        side: of the picture, in pixels.
        rng: source of randomness.
        reach: range of the subject's longer side, as a share of `side`.
        spread: standard deviation of its centre about the middle, as a share of `side`.
    """
    height, width = subject.shape[:2]
    scale = side * rng.uniform(*reach) / max(height, width)
    turn = rng.normal(0, 0.25) if chance(rng, 0.8) else rng.uniform(-np.pi, np.pi)
    stretch = np.exp(rng.normal(0, 0.12))
    mirror = -1.0 if chance(rng, 0.5) else 1.0
    to_side = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    to_side = to_side @ np.diag([mirror * stretch, 1 / stretch])
    to_side = to_side @ np.array([[1, rng.normal(0, 0.06)], [0, 1]])
    centre = side * (rng.uniform(0.1, 0.9, 2) if chance(rng, 0.25) else rng.normal(0.5, spread, 2))
    back = np.linalg.inv(to_side)
    offset = np.array([width, height]) / 2 - back @ centre
    matrix = (*back[0], offset[0], *back[1], offset[1])
    whole = Image.fromarray(np.ascontiguousarray(subject))
    if scale < _SMALL:
        less = max(0.1, scale * 1.4)
        whole = whole.resize((max(1, int(width * less)), max(1, int(height * less))), Image.Resampling.BOX)
        rx, ry = whole.width / width, whole.height / height
        matrix = tuple(v * r for v, r in zip(matrix, (rx, rx, rx, ry, ry, ry), strict=True))
    # Premultiplied colours keep the black of transparent pixels from bleeding into the edge.
    premultiplied = whole.convert("RGBa").transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(premultiplied.convert("RGBA"))


def _textured(library: Library, body: Floats, own: Floats, rng: Rng) -> Floats:
    """Fill the outline `own` with a photograph or noise, and shade it like a bulging surface."""
    side = len(own)
    if chance(rng, 0.6):
        inside: Floats = photograph(library, side, rng).astype(np.float32)
    else:
        values = noise(side, rng, roughness=rng.uniform(0.3, 0.9))[..., None]
        inside = colour(rng) * values + colour(rng) * (1 - values)
    kept = rng.choice((0.0, 0.0, 0.35, 0.6))
    filled: Floats = (inside * (1 - kept) + body * kept) * _shading(own, rng)[..., None]
    return filled


def _shading(own: Floats, rng: Rng) -> Floats:
    """Shade by Lambert's law a height that grows inwards from the outline: factors about 1, `[side, side]`."""
    side = len(own)
    height = np.zeros_like(own)
    for radius in (2, 5, 12):
        height += np.asarray(_gauss(own, radius * side / 256), np.float32) * radius
    dy, dx = np.gradient(height * rng.uniform(0.3, 1.2))
    turn, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.2)
    light = (np.cos(rise) * (dx * np.cos(turn) + dy * np.sin(turn)) + np.sin(rise)) / np.sqrt(dx * dx + dy * dy + 1)
    ambient = rng.uniform(0.25, 0.7)
    shade = ambient + (1 - ambient) * np.clip(light, 0, None) / np.sin(rise)
    if chance(rng, 0.3):
        shade = shade + rng.uniform(0.3, 1.2) * np.clip(light, 0, 1) ** 24
    return np.asarray(shade, np.float32)


def _relit(body: Floats, rng: Rng) -> Floats:
    """Change gamma, gain, saturation and tint."""
    grey = body.mean(-1, keepdims=True)
    body = grey + (body - grey) * rng.uniform(0.3, 1.3)
    body = 255 * np.clip(body / 255, 0, 1) ** np.exp(rng.normal(0, 0.25))
    tint = 1 + rng.normal(0, 0.08, 3).astype(np.float32)
    return (body * tint * rng.uniform(0.7, 1.15) + rng.uniform(-10, 25)).astype(np.float32)


def _shadow(own: Floats, rng: Rng) -> Floats:
    """Return the share of light, 0 to 0.6, that the subject takes from the background: `[side, side]`."""
    side = len(own)
    dx, dy = (int(v) for v in rng.normal(0, 0.05, 2) * side)
    soft = np.asarray(_gauss(own, rng.uniform(0.01, 0.06) * side), np.float32)
    return np.roll(soft, (dy, dx), (0, 1)) * rng.uniform(0.15, 0.6)


def _camera(pixels: Floats, rng: Rng) -> Pixels:
    """Apply what a camera and a file format do: white balance and exposure, noise, blur, JPEG, sometimes monochrome."""
    side = len(pixels)
    pixels = pixels * (1 + rng.normal(0, 0.05, 3).astype(np.float32)) * rng.uniform(0.75, 1.2)
    if chance(rng, 0.07):
        pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, axis=-1)
    if chance(rng, 0.5):
        pixels = pixels + rng.normal(0, rng.uniform(1, 9), (side, side, 1)).astype(np.float32)
    seen = np.clip(pixels, 0, 255).astype(np.uint8)
    if chance(rng, 0.25):
        seen = _blurred(seen, rng.uniform(0.3, 1.3))
    if chance(rng, 0.5):
        buffer = io.BytesIO()
        Image.fromarray(seen).save(buffer, "JPEG", quality=int(rng.integers(35, 96)))
        seen = np.asarray(Image.open(buffer))
    return seen


def _blurred(pixels: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _gauss(values: Floats, radius: float) -> Image.Image:
    """Blur values between 0 and 1; Pillow blurs 8-bit images only, so they are quantised to 8 bits on the way."""
    grey = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return Image.fromarray(np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255)
