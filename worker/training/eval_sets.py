"""Pictures with true masks for evaluating a network, as folders for `worker model verify --images A --masks B`.

    composites/     subjects and backgrounds held out from training, composed as in training
    stamps/         photographs of objects with alpha in front of photographs: wallpapers and held-out ones in turn

The stamps and wallpapers are under the GPL: they are composed on the machine that uses them and never redistributed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from worker.training import compose, library, sources
from worker.training.compose import Composite
from worker.training.library import Pixels

SIDE = 384
"""Side of a picture in pixels; the network resizes it, as it would a photograph."""
COUNT = 200
"""Pictures in each set."""
SEED = 3
_PHOTOGRAPHIC = ("animals", "clothes", "food", "hobbies", "household", "plants", "sports", "town", "vehicles")
"""Folders of stamps that show objects."""
_DRAWN = ("cartoon", "flags", "roadsigns", "plastic")
"""Folders within these that hold drawings."""
_MOST_OFTEN = 0.05
"""Largest share of a subject's pixels with its most frequent colour; a drawing exceeds it."""
_SHORTEST = 96
"""Least side of a stamp in pixels."""


def write(downloads: Path, folder: Path, output: Path, *, count: int = COUNT) -> dict[str, int]:
    """Write both evaluation sets.

    Args:
        downloads: folder of the packages, which are fetched if missing.
        folder: of the library.
        output: folder for the sets.
        count: pictures in each set.

    Returns:
        The number of pictures by set.

    Raises:
        SetupError, SourceError: see `sources.fetch`.
    """
    return {
        "composites": _write(composites(folder, count), output / "composites"),
        "stamps": _write(stamps(downloads, folder, count), output / "stamps"),
    }


def composites(folder: Path, count: int) -> Iterator[Composite]:
    """Compose held-out subjects and backgrounds, which training never sees."""
    held_out = library.load(folder, "held_out")
    for number in range(count):
        yield compose.composite(held_out, SIDE, SEED, number)


def stamps(downloads: Path, folder: Path, count: int) -> Iterator[Composite]:
    """Put stamps, upright and whole, in front of crops of photographs; colours and sharpness are not changed."""
    subjects, wallpapers = list(_stamps(downloads)), list(_wallpapers(downloads))
    unseen = library.load(folder, "held_out").photographs
    photographs = [Image.fromarray(unseen[index]) for index in range(len(unseen))]
    for number in range(count):
        rng = np.random.default_rng((SEED, number))
        backgrounds = wallpapers if number % 2 else photographs
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        yield _in_front(subjects[number % len(subjects)], background, rng)


def _in_front(stamp: Image.Image, background: Image.Image, rng: np.random.Generator) -> Composite:
    longest = SIDE * rng.uniform(0.45, 0.85)
    scale = longest / max(stamp.size)
    shown = stamp.resize((round(stamp.width * scale), round(stamp.height * scale)), Image.Resampling.LANCZOS)
    part = round(min(background.size) * rng.uniform(0.5, 1.0))
    left, top = int(rng.integers(background.width - part + 1)), int(rng.integers(background.height - part + 1))
    ground = background.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + part, top + part))
    place = int(rng.integers(SIDE - shown.width + 1)), int(rng.integers(SIDE - shown.height + 1))
    alpha = Image.new("L", ground.size)
    alpha.paste(shown.getchannel("A"), place)
    ground.paste(shown, place, shown)
    return Composite(np.asarray(ground), np.asarray(alpha))


def _stamps(downloads: Path) -> Iterator[Image.Image]:
    root = sources.fetch(sources.STAMPS, downloads) / "usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*.png")):
        parts = path.relative_to(root).parts
        if parts[0] not in _PHOTOGRAPHIC or any(part in _DRAWN for part in parts):
            continue
        with Image.open(path) as image:
            whole = image.convert("RGBA")
        pixels = library.extract_subject(whole)
        if pixels is not None and min(pixels.shape[:2]) >= _SHORTEST and is_photograph(pixels):
            yield Image.fromarray(pixels)


def is_photograph(pixels: Pixels) -> bool:
    """Return whether no colour of the subject is as frequent as in a drawing.

    Args:
        pixels: RGBA `[h, w, 4]`; colours are compared at 64 levels a channel.
    """
    inside = pixels[pixels[..., 3] >= library.HALF][:, :3].astype(np.int64) // 4
    _, counts = np.unique(inside @ np.array([4096, 64, 1]), return_counts=True)
    return bool(counts.max() <= _MOST_OFTEN * len(inside))


def _wallpapers(downloads: Path) -> Iterator[Image.Image]:
    root = sources.fetch(sources.WALLPAPERS, downloads) / "usr/share/backgrounds/mate/nature"
    for path in sorted(root.glob("*.jpg")):
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
        yield small


def _write(pictures: Iterator[Composite], output: Path) -> int:
    count = 0
    for kind in ("images", "masks"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    for count, one in enumerate(pictures, 1):
        Image.fromarray(one.pixels).save(output / "images" / f"{count:04}.png")
        Image.fromarray(one.alpha).save(output / "masks" / f"{count:04}.png")
    return count
