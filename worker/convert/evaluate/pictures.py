"""Pictures to evaluate a network on, from a folder or built in, and the true masks that belong to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import ImageError, SourceError, StandaloneError
from worker.contract.settings import LimitSettings
from worker.images.decode import Picture, decode
from worker.images.png import write_png
from worker.images.tensor import to_mask
from worker.images.true_mask import read_true_mask
from worker.standalone.photographs import copy_photographs

_SHAPE_SIDE = 384
_INNER, _OUTER = 0.45, 0.75
"""Radii of the generated shapes, relative to half the side."""


def gather(folder: Path | None, scratch: Path) -> tuple[list[Path], str]:
    """Return the files of the pictures, and a description of them.

    Args:
        folder: of the user's pictures; None for built-in ones: photographs if scikit-image is installed, else
            generated shapes.
        scratch: folder that built-in pictures are written to.

    Raises:
        SourceError: the folder does not exist, cannot be read or is empty.
    """
    if folder is not None:
        found = _files(folder)
        return found, f"{len(found)} pictures from {folder}"
    try:
        found = copy_photographs(scratch)
        return found, f"{len(found)} photographs included in scikit-image"
    except StandaloneError:
        found = _shapes(scratch)
        return found, f"{len(found)} generated shapes (scikit-image, which includes photographs, is not installed)"


def true_masks(pictures: list[Path], folder: Path) -> dict[int, Path]:
    """Return the true masks by the index of their picture; both have the same file name apart from the suffix.

    Raises:
        SourceError: the folder cannot be read, or no name matches.
    """
    by_stem = {path.stem: path for path in _files(folder)}
    paired = {index: by_stem[path.stem] for index, path in enumerate(pictures) if path.stem in by_stem}
    if not paired:
        raise SourceError(
            f"{folder} has no mask for any picture; name each mask like its picture, such as {pictures[0].stem}.png"
        )
    return paired


def read(path: Path, limits: LimitSettings) -> Picture:
    """Decode one picture as the worker does.

    Raises:
        SourceError: the file cannot be read or decoded; the error names it.
    """
    try:
        return decode(path.read_bytes(), limits)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except ImageError as error:
        raise SourceError(f"{path}: {error}; remove it from the folder") from error


def with_true_mask(
    grey: NDArray[np.uint8], picture: Path, mask: Path, limits: LimitSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a network's mask, resized to the size of the picture, and the true mask: two u8 `[h, w]`.

    Args:
        grey: u8 `[H, W]`, as the network gives it.
        picture: file of the picture.
        mask: file of its true mask.
        limits: limits of a picture.

    Raises:
        SourceError: a file cannot be read, or the true mask has another size than the picture.
    """
    truth = true_mask(picture, mask, limits)
    height, width = truth.shape
    return np.asarray(to_mask(grey, width, height)), truth


def true_mask(picture: Path, mask: Path, limits: LimitSettings) -> NDArray[np.uint8]:
    """Read a true mask: u8 `[h, w]`, 0 background, 255 subject.

    Args:
        picture: file of the picture.
        mask: file of its true mask; see `worker.images.true_mask`.
        limits: limits of a picture.

    Raises:
        SourceError: a file cannot be read, the true mask has another size than the picture, or its levels have no
            agreed meaning.
    """
    width, height = read(picture, limits).size
    try:
        truth = read_true_mask(mask.read_bytes(), limits)
    except OSError as error:
        raise SourceError(f"{mask} cannot be read: {error.strerror}; check its permissions") from error
    except ImageError as error:
        raise SourceError(f"{mask}: {error}") from error
    if truth.shape != (height, width):
        raise SourceError(
            f"{mask} has {truth.shape[1]} x {truth.shape[0]} pixels, but its picture {picture.name} has {width} x "
            f"{height}; a true mask must have the size of its picture"
        )
    return truth


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}; give a folder of pictures") from error
    if not found:
        raise SourceError(f"{folder} contains no files; give a folder of pictures")
    return found


def _shapes(folder: Path) -> list[Path]:
    """Draw a disc, a ring and a box on shaded backgrounds."""
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
