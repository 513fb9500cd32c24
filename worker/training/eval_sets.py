"""Pictures with true masks to judge a network by, as folders for `worker model verify --images A --masks B`.

    composites/     subjects and backgrounds held out from training, by the training's own composer
    stamps/         photographs of things with alpha in front of photographs: wallpapers, and those held out, in turn

The stamps and wallpapers are under the GPL: they are composed where they are needed and never passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from worker.training import compose, library, sources
from worker.training.library import Pixels, Shelf

SIDE = 384
"""Of a composite in pixels; the network resizes, as it would a photograph."""
COUNT = 200
SEED = 3
_PHOTOGRAPHIC = ("animals", "clothes", "food", "hobbies", "household", "plants", "sports", "town", "vehicles")
"""Folders of stamps that show things."""
_DRAWN = ("cartoon", "flags", "roadsigns", "plastic")
_MOST_OFTEN = 0.05
"""Share of a subject's pixels that have its commonest colour: a drawing has more."""
_SHORTEST = 96


def write(downloads: Path, folder: Path, output: Path, *, count: int = COUNT) -> dict[str, int]:
    """Write both exams; how many pictures each has.

    Raises:
        SetupError, SourceError: see `sources.fetched`.
    """
    return {
        "composites": _write(composites(folder, count), output / "composites"),
        "stamps": _write(stamped(downloads, folder, count), output / "stamps"),
    }


def composites(folder: Path, count: int) -> Iterator[compose.Sample]:
    """Of what training has never seen."""
    held_out = library.load(folder, "held_out")
    for number in range(count):
        yield compose.sample(held_out, SIDE, SEED, number)


def stamped(downloads: Path, folder: Path, count: int) -> Iterator[compose.Sample]:
    """A stamp as it is, upright and whole, in front of a part of a photograph; nothing is drawn, lit or blurred."""
    stamps, wallpapers = list(_stamps(downloads)), list(_wallpapers(downloads))
    unseen = library.load(folder, "held_out").photographs
    photographs = [Image.fromarray(unseen[index]) for index in range(len(unseen))]
    for number in range(count):
        rng = np.random.default_rng((SEED, number))
        stamp = stamps[number % len(stamps)]
        walls = wallpapers if number % 2 else photographs
        yield _in_front(stamp, walls[int(rng.integers(len(walls)))], rng)


def _in_front(stamp: Image.Image, wall: Image.Image, rng: np.random.Generator) -> compose.Sample:
    longest = SIDE * rng.uniform(0.45, 0.85)
    scale = longest / max(stamp.size)
    shown = stamp.resize((round(stamp.width * scale), round(stamp.height * scale)), Image.Resampling.LANCZOS)
    part = round(min(wall.size) * rng.uniform(0.5, 1.0))
    left, top = int(rng.integers(wall.width - part + 1)), int(rng.integers(wall.height - part + 1))
    ground = wall.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + part, top + part))
    place = int(rng.integers(SIDE - shown.width + 1)), int(rng.integers(SIDE - shown.height + 1))
    alpha = Image.new("L", ground.size)
    alpha.paste(shown.getchannel("A"), place)
    ground.paste(shown, place, shown)
    return compose.Sample(np.asarray(ground), np.asarray(alpha))


def _stamps(downloads: Path) -> Iterator[Image.Image]:
    root = sources.fetched(sources.STAMPS, downloads) / "usr/share/tuxpaint/stamps"
    for path in sorted(root.rglob("*.png")):
        parts = path.relative_to(root).parts
        if parts[0] not in _PHOTOGRAPHIC or any(part in _DRAWN for part in parts):
            continue
        with Image.open(path) as image:
            whole = image.convert("RGBA")
        pixels = library.subject(whole)
        if pixels is not None and min(pixels.shape[:2]) >= _SHORTEST and is_photograph(pixels):
            yield Image.fromarray(pixels)


def is_photograph(pixels: Pixels) -> bool:
    """Whether no colour (of 16 levels a channel) of the subject is as common as in a drawing."""
    inside = pixels[pixels[..., 3] >= library.HALF][:, :3].astype(np.int64) // 4
    _, counts = np.unique(inside @ np.array([4096, 64, 1]), return_counts=True)
    return bool(counts.max() <= _MOST_OFTEN * len(inside))


def _wallpapers(downloads: Path) -> Iterator[Image.Image]:
    root = sources.fetched(sources.WALLPAPERS, downloads) / "usr/share/backgrounds/mate/nature"
    for path in sorted(root.glob("*.jpg")):
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
        yield small


def _write(samples: Iterator[compose.Sample], output: Path) -> int:
    count = 0
    for kind in ("images", "masks"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    for count, one in enumerate(samples, 1):
        Image.fromarray(one.pixels).save(output / "images" / f"{count:04}.png")
        Image.fromarray(one.alpha).save(output / "masks" / f"{count:04}.png")
    return count


def sheet(shelf: Shelf | list[Pixels], path: Path, *, columns: int = 8, cell: int = 128) -> None:
    """Small copies side by side, for people to look at."""
    rows = -(-len(shelf) // columns)
    page = Image.new("RGB", (columns * cell, rows * cell), (200, 200, 200))
    for index in range(len(shelf)):
        image = Image.fromarray(np.ascontiguousarray(shelf[index]))
        image.thumbnail((cell, cell))
        place = index % columns * cell, index // columns * cell
        page.paste(image, place, image if image.mode == "RGBA" else None)
    page.save(path)
