"""Photographs to calibrate INT8 with, and others to judge it on.

A network must hold on pictures that its ranges were not taken from, so the two sets never share a photograph. Without a
folder, the photographs of scikit-image are used; there are few, so each is shown whole, mirrored, and in two crops.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.contract.errors import SetupError, SourceError, StandaloneError
from worker.contract.input_size import InputSize
from worker.contract.settings import LimitSettings
from worker.convert import calibration
from worker.images.decode import decode
from worker.images.resize import bilinear
from worker.images.tensor import to_tensor
from worker.standalone.photographs import copy_photographs

CALIBRATED_ON = ("chelsea.png", "coins.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
JUDGED_ON = ("astronaut.png", "camera.png", "coffee.png")
"""Photographs of scikit-image. Those that judge have a subject of a third of the picture or more, about which networks
are certain: the IoU of a rocket of two per cent of its picture says little about rounding."""

_CROP = 0.875
"""Side of a crop, as a share of the picture's."""

_LARGE = 640 * 640
"""Pixels from which fewer pictures are taken: at 1024 each takes seconds, in every form of the network."""
_FEW_VIEWS, _VIEWS = 2, 4

MOST_FROM_FOLDER = 36
_FEW_FROM_FOLDER = 16
LEAST_FROM_FOLDER = 6
_HELD_OUT_EVERY = 3

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Int8Pictures:
    """Both sets, as tensors of the worker: u8 `[n, H, W, 3]`."""

    calibration: Pixels
    judged: Pixels
    source: str
    """Where they come from, in words."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Names of the photographs of both sets."""
    sha256: str
    """Digest of the photographs of both sets; see `worker.convert.calibration.CalibrationSet.digest`."""

    def as_dict(self) -> dict[str, object]:
        """Return the facts for the bundle manifest."""
        return {
            "source": self.source,
            "calibrated_on": f"{len(self.calibration)} pictures of {len(self.names[0])} photographs",
            "judged_on": f"{len(self.judged)} pictures of {len(self.names[1])} other photographs",
            "sha256": self.sha256,
        }


def gather(folder: str | None, size: InputSize) -> Int8Pictures:
    """Return both sets at a size.

    Args:
        folder: of photographs; None for those of scikit-image.
        size: input size of the network.

    Raises:
        SetupError: no folder is given, and scikit-image is not installed.
        BundleNotFound: the folder does not exist.
        SourceError: it holds too few pictures.
    """
    return _built_in(size) if folder is None else _from_folder(Path(folder), size)


def _from_folder(folder: Path, size: InputSize) -> Int8Pictures:
    most = _FEW_FROM_FOLDER if size.pixels > _LARGE else MOST_FROM_FOLDER
    found = calibration.from_folder(folder, most, LimitSettings())
    if len(found.pictures) < LEAST_FROM_FOLDER:
        raise SourceError(
            f"calibration folder {folder} holds {len(found.pictures)} pictures; give at least {LEAST_FROM_FOLDER}, of "
            f"which every third is kept to judge the result on"
        )
    tensors = found.tensors(size)
    kept = np.arange(len(tensors)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    names = [f"picture {index}" for index in range(len(tensors))]
    return Int8Pictures(
        tensors[~kept],
        tensors[kept],
        f"{len(tensors)} photographs of the folder {folder.resolve().name}",
        (
            tuple(name for name, is_kept in zip(names, kept, strict=True) if not is_kept),
            tuple(name for name, is_kept in zip(names, kept, strict=True) if is_kept),
        ),
        found.digest,
    )


def _built_in(size: InputSize) -> Int8Pictures:
    views = _FEW_VIEWS if size.pixels > _LARGE else _VIEWS
    limits = LimitSettings()
    with tempfile.TemporaryDirectory(prefix="maskmill-") as scratch:
        try:
            copy_photographs(Path(scratch))
        except StandaloneError as error:
            raise SetupError(
                "INT8 needs photographs: give a folder with --calibration, or install scikit-image, which includes "
                "some: pip install 'maskmill[import]'"
            ) from error
        data = {name: (Path(scratch) / name).read_bytes() for name in (*CALIBRATED_ON, *JUDGED_ON)}

    def shown(names: Sequence[str]) -> Pixels:
        return np.concatenate([_views(data[name], size, limits, views) for name in names])

    whole = calibration.CalibrationSet(calibration.BUILT_IN, tuple(data.values()), (), limits)
    return Int8Pictures(
        shown(CALIBRATED_ON), shown(JUDGED_ON), calibration.BUILT_IN, (CALIBRATED_ON, JUDGED_ON), whole.digest
    )


def _views(data: bytes, size: InputSize, limits: LimitSettings, count: int) -> Pixels:
    """The whole picture, the picture mirrored, and crops at two corners; the first `count` of these."""
    picture = decode(data, limits)
    whole = to_tensor(picture, size)
    width, height = picture.rgb.size
    left, top = width * (1 - _CROP), height * (1 - _CROP)
    corners = [(0.0, 0.0), (left, top)]
    crops = [
        np.array(bilinear(picture.rgb, (size.width, size.height), (x, y, x + width * _CROP, y + height * _CROP)))
        for x, y in corners
    ]
    views: Pixels = np.concatenate([whole, whole[:, :, ::-1], *(crop[np.newaxis] for crop in crops)])
    return views[:count]
