"""One picture to train on and its true mask: subjects in front of a background, as a camera might have seen it.

    backdrop ── shadow ── subject: clip art, or a photograph in its outline, shaded ── light ── blur, noise, JPEG

A sample depends on its number alone, so that training can go on anywhere, with any number of processes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from worker.training.backdrops import Floats, Rng, backdrop, chance, colour, flat, noise, photograph
from worker.training.library import Library, Pixels

_TEXTURED = 0.5
"""Share of subjects that are an outline filled with a photograph or a texture and shaded as a body."""
_COUNTS = (0.78, 0.16, 0.06)
"""Of one, two and three subjects."""
_LEAST_AREA, _MOST_AREA = 0.02, 0.85
"""Share of the picture that is subject."""
_TRIES = 4
_SMALL = 0.6
"""Scale below which a subject is averaged first."""


@dataclass(frozen=True)
class Sample:
    """A composite."""

    pixels: Pixels
    """u8 [side, side, 3]."""
    alpha: Pixels
    """u8 [side, side]."""


def sample(library: Library, side: int, seed: int, number: int, *, crowded: float = 0.0) -> Sample:
    """The composite of that number.

    Args:
        library: subjects and photographs.
        side: in pixels.
        seed: of the whole series.
        number: of this sample.
        crowded: share of backgrounds that are full of shapes, see `crowd`.
    """
    rng = np.random.default_rng((seed, number))
    ground = crowd(library, side, rng) if crowded and chance(rng, crowded) else backdrop(library, side, rng)
    if chance(rng, 0.3):
        ground = _blurred(ground, rng.uniform(0.5, 4) * side / 256)
    pixels = ground.astype(np.float32)
    alpha = np.zeros((side, side), np.float32)
    for _ in range(1 + int(rng.choice(3, p=_COUNTS))):
        pixels, alpha = _added(library, pixels, alpha, rng)
    return Sample(_seen(pixels, rng), np.rint(alpha * 255).astype(np.uint8))


def crowd(library: Library, side: int, rng: Rng) -> Pixels:
    """Large shapes that lie over each other and run out of the picture, as petals do in a close-up: u8 [side, side, 3].

    They are no subjects, however bright: the subject is what lies whole in front of them.
    """
    pixels: Floats = backdrop(library, side, rng).astype(np.float32)
    for _ in range(int(rng.integers(2, 8))):
        shape = library.subjects[int(rng.integers(len(library.subjects)))]
        placed = _placed(shape, side, rng, reach=(0.8, 2.5), spread=0.4)
        share = placed[..., 3:].astype(np.float32) / 255
        body = flat(side, rng) if chance(rng, 0.6) else _lit(placed[..., :3].astype(np.float32), rng)
        pixels = np.clip(body, 0, 255) * share + pixels * (1 - share)
    made = pixels.astype(np.uint8)
    return _blurred(made, rng.uniform(0.5, 5) * side / 256) if chance(rng, 0.5) else made


def _added(library: Library, pixels: Floats, alpha: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """With one more subject; it is placed anew if next to nothing of it, or nothing else, would be seen."""
    side = len(alpha)
    for _ in range(_TRIES):
        placed = _placed(library.subjects[int(rng.integers(len(library.subjects)))], side, rng)
        own = placed[..., 3].astype(np.float32) / 255
        area = float(np.maximum(own, alpha).mean())
        if _LEAST_AREA <= area <= _MOST_AREA and own.mean() >= _LEAST_AREA / 2:
            break
    else:
        return pixels, alpha
    if chance(rng, 0.15):
        own = own * rng.uniform(0.85, 1.0)
    body = placed[..., :3].astype(np.float32)
    if chance(rng, _TEXTURED):
        body = _textured(library, body, own, rng)
    body = _lit(body, rng)
    if chance(rng, 0.25):  # camouflage: colours like those around it
        mean = (body * own[..., None]).sum((0, 1)) / max(float(own.sum()), 1)
        body = body + (pixels.mean((0, 1)) - mean) * rng.uniform(0.3, 0.9)
    if chance(rng, 0.35):
        pixels = pixels * (1 - _shadow(own, rng)[..., None])
    if chance(rng, 0.6):
        own = np.asarray(_gauss(own, rng.uniform(0.3, 1.1)), np.float32)
    share = own[..., None]
    mixed = np.clip(body, 0, 255) * share + pixels * (1 - share)
    return mixed.astype(np.float32), 1 - (1 - alpha) * (1 - own)


def _placed(
    subject: Pixels, side: int, rng: Rng, *, reach: tuple[float, float] = (0.3, 1.05), spread: float = 0.1
) -> Pixels:
    """Scaled, turned, stretched, mirrored and shifted, perhaps beyond the border: RGBA [side, side, 4]."""
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
    if scale < _SMALL:  # the transformation does not average
        less = max(0.1, scale * 1.4)
        whole = whole.resize((max(1, int(width * less)), max(1, int(height * less))), Image.Resampling.BOX)
        rx, ry = whole.width / width, whole.height / height
        matrix = tuple(v * r for v, r in zip(matrix, (rx, rx, rx, ry, ry, ry), strict=True))
    # A black rim must not creep in from where nothing is: colours are carried premultiplied.
    premultiplied = whole.convert("RGBa").transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(premultiplied.convert("RGBA"))


def _textured(library: Library, body: Floats, own: Floats, rng: Rng) -> Floats:
    """The outline filled with something else, and shaded as if it bulged."""
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
    """Lambert's law on a height that grows from the outline inwards, [side, side] about 1."""
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


def _lit(body: Floats, rng: Rng) -> Floats:
    """Other light: gamma, gain, saturation, tint."""
    grey = body.mean(-1, keepdims=True)
    body = grey + (body - grey) * rng.uniform(0.3, 1.3)
    body = 255 * np.clip(body / 255, 0, 1) ** np.exp(rng.normal(0, 0.25))
    tint = 1 + rng.normal(0, 0.08, 3).astype(np.float32)
    return (body * tint * rng.uniform(0.7, 1.15) + rng.uniform(-10, 25)).astype(np.float32)


def _shadow(own: Floats, rng: Rng) -> Floats:
    """What the subject takes from the light behind it, 0 to 0.6."""
    side = len(own)
    dx, dy = (int(v) for v in rng.normal(0, 0.05, 2) * side)
    soft = np.asarray(_gauss(own, rng.uniform(0.01, 0.06) * side), np.float32)
    return np.roll(soft, (dy, dx), (0, 1)) * rng.uniform(0.15, 0.6)


def _seen(pixels: Floats, rng: Rng) -> Pixels:
    """Through a camera and a file: light, blur, noise, JPEG, sometimes without colour."""
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
    """Blurred on 8 bits, which is what Pillow blurs; scaled back to 0 to 1."""
    grey = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return Image.fromarray(np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255)
