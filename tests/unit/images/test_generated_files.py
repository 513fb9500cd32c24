"""A thousand generated files, of every kind that each format knows: right pixels, or a refusal in clear words."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import tifffile

from support.picture_files import FORMATS, PictureFile
from worker.contract.errors import ImageError, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import Picture, decode

LIMITS = LimitSettings()
LEAST = {"png": 330, "tiff": 500, "jpeg": 130, "webp": 60, "gif": 90, "bmp": 110, "avif": 50}


def difference(found: np.ndarray, right: np.ndarray, file: PictureFile, known: np.ndarray | None = None) -> str:
    """Say how found levels differ from the right ones by more than the file's tolerance; '' if they do not."""
    if found.shape != right.shape:
        return f"size {found.shape} in place of {right.shape}"
    away = np.abs(found.astype(int) - right)
    away = away if known is None else away[known]
    if not away.size or (away.max() <= file.tolerance and away.mean() <= file.mean_tolerance):
        return ""
    return f"off by {away.max()} at most, by {away.mean():.1f} in the mean"


def fault(file: PictureFile) -> str:
    """Return what the reader does wrong with a file; '' if it does what it must."""
    try:
        picture = decode(file.data, LIMITS)
    except UnsupportedFormat as error:
        return "" if file.may_be_refused or file.rgb is None else f"refused: {error}"
    except ImageError as error:
        return f"refused in the wrong words: {error}"
    if file.rgb is None:
        return "read, although the file does not determine its pixels"
    return _wrong(picture, file)


def _wrong(picture: Picture, file: PictureFile) -> str:
    assert file.rgb is not None
    if wrong := difference(np.asarray(picture.rgb), file.rgb, file, file.known):
        return f"colours {wrong}"
    if (picture.alpha is None) != (file.alpha is None):
        return f"alpha {'found' if picture.alpha else 'lost'}"
    if picture.alpha is not None and (wrong := difference(np.asarray(picture.alpha), file.alpha, file)):
        return f"alpha {wrong}"
    if file.has_profile is not None and (picture.icc_profile is not None) != file.has_profile:
        return f"profile {'found' if picture.icc_profile else 'lost'}"
    return ""


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_gives_its_pixels_or_is_refused(kind):
    files = list(FORMATS[kind]())

    assert {file.name: wrong for file in files if (wrong := fault(file))} == {}
    assert len(files) >= LEAST[kind]


def test_most_files_are_read():
    """A reader that refused everything would make no fault."""
    refused = dict.fromkeys(FORMATS, 0)
    for kind, make in FORMATS.items():
        for file in make():
            try:
                decode(file.data, LIMITS)
            except UnsupportedFormat:
                refused[kind] += 1

    # Of TIFF there are many kinds that no reader but libtiff's own knows.
    assert {kind for kind, count in refused.items() if count} <= {"tiff", "bmp"}
    assert refused["tiff"] <= 300
    assert refused["bmp"] <= 35


def test_an_independent_reader_finds_the_same_in_the_tiff_files():
    """Without further libraries, `tifffile` reads what is not packed with LZW, in most depths."""
    wrong, compared = {}, 0
    for file in FORMATS["tiff"]():
        if file.stored is None or "no byte counts" in file.name:
            continue
        with contextlib.suppress(
            ValueError, ImportError, NotImplementedError
        ):  # a compression, depth or predictor beyond it
            found = tifffile.imread(io.BytesIO(file.data))
            compared += 1
            planar = found.ndim == 3 and "planar True" in file.name
            shown = (np.moveaxis(found, 0, -1) if planar else found).astype(np.uint16)
            if not np.array_equal(shown.reshape(file.stored.shape), file.stored):
                wrong[file.name] = shown

    assert list(wrong) == []
    assert compared >= 150
