"""Pictures to try a network on: a folder, or built-in ones; and the true masks that belong to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import ImageError, SourceError, StandaloneError
from worker.contract.settings import LimitSettings
from worker.images.decode import Picture, decode
from worker.images.png import write_png
from worker.images.tensor import to_mask
from worker.standalone.photographs import copy_photographs

_SHAPE_SIDE = 384
_INNER, _OUTER = 0.45, 0.75
"""Of half the side."""


def gather(folder: Path | None, scratch: Path) -> tuple[list[Path], str]:
    """The pictures, and what they are in words.

    Args:
        folder: of the user's pictures; None for built-in ones: photographs where scikit-image is installed, else
            generated shapes.
        scratch: where built-in ones are written.

    Raises:
        SourceError: the folder is not there, cannot be read or is empty.
    """
    if folder is not None:
        found = _files(folder)
        return found, f"{len(found)} pictures of {folder}"
    try:
        found = copy_photographs(scratch)
        return found, f"{len(found)} photographs that come with scikit-image"
    except StandaloneError:
        found = _shapes(scratch)
        return found, f"{len(found)} generated shapes: scikit-image, which ships photographs, is not installed"


def truths(pictures: list[Path], folder: Path) -> dict[int, Path]:
    """True masks by the place of their picture in the list; they are paired by file name without its ending.

    Raises:
        SourceError: the folder cannot be read, or no name fits.
    """
    by_stem = {path.stem: path for path in _files(folder)}
    paired = {index: by_stem[path.stem] for index, path in enumerate(pictures) if path.stem in by_stem}
    if not paired:
        raise SourceError(
            f"{folder} has no mask for any picture; name each mask as its picture, such as {pictures[0].stem}.png"
        )
    return paired


def read(path: Path, limits: LimitSettings) -> Picture:
    """Decode one picture, as the worker does.

    Raises:
        SourceError: it cannot be read or decoded; names it.
    """
    try:
        return decode(path.read_bytes(), limits)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except ImageError as error:
        raise SourceError(f"{path}: {error}; remove it from the folder") from error


def with_truth(
    grey: NDArray[np.uint8], mask: Path, limits: LimitSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A network's answer at the size of the true mask, and that mask: two u8 [h, w].

    Raises:
        SourceError: the mask cannot be read.
    """
    truth = np.asarray(read(mask, limits).rgb.convert("L"))
    height, width = truth.shape
    return np.asarray(to_mask(grey, width, height)), truth


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}; name a folder of pictures") from error
    if not found:
        raise SourceError(f"{folder} holds no files; name a folder of pictures")
    return found


def _shapes(folder: Path) -> list[Path]:
    """A disc, a ring and a box on shaded grounds."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1 : 1 : _SHAPE_SIDE * 1j, -1 : 1 : _SHAPE_SIDE * 1j]
    radius, box = np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    shapes = {
        "disc": radius < _INNER,
        "ring": (radius > _INNER) & (radius < _OUTER),
        "box": box < _INNER,
    }
    paths = []
    for name, inside in shapes.items():
        grey = np.where(inside, 200 + 30 * x, 60 + 40 * y).astype(np.uint8)
        path = folder / f"{name}.png"
        path.write_bytes(write_png(to_mask(grey, _SHAPE_SIDE, _SHAPE_SIDE)))
        paths.append(path)
    return paths
