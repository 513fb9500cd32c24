"""Pictures from which INT8 ranges are taken and on which variants are compared.

    folder, s3:// prefix or the photographs of scikit-image ──> CalibrationSet ── tensors(size) ──> u8 [n, H, W, 3]

They are decoded and resized by the functions that the worker uses, so the network is calibrated on what it will see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleNotFound, ImageError, SetupError, SourceError, StandaloneError
from worker.contract.input_size import InputSize
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings, Settings
from worker.contract.storage.s3 import ObjectInfo, ObjectStore
from worker.images.decode import decode
from worker.images.tensor import to_tensor
from worker.standalone.photographs import copy_photographs

DEFAULT_IMAGES = 32
"""Default number of pictures. NNCF's default of 300 is meant for classifiers with labels; the ranges of a segmentation
network settle within a few dozen pictures, and each takes seconds at 1024."""

MAX_LISTED = 100_000
"""Most files of a folder, or keys of a prefix, among which pictures are chosen."""

BUILT_IN = "photographs of scikit-image"

_MIB = 1 << 20
_T = TypeVar("_T")


class Store(Protocol):
    """The part of `worker.contract.storage.s3.ObjectStore` used here."""

    def list(self, folder: S3Url) -> Iterator[ObjectInfo]:
        """Yield every object under a folder, with keys relative to it."""

    def get(self, place: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        """Return one object."""


@dataclass(frozen=True)
class CalibrationSet:
    """Encoded pictures, each known to decode."""

    source: str
    """Folder or prefix, or `BUILT_IN`."""
    pictures: tuple[bytes, ...]
    skipped: tuple[str, ...]
    """Name and reason for each file that is not a picture."""
    limits: LimitSettings

    @property
    def digest(self) -> str:
        r"""SHA-256 of the ASCII text made of each picture's SHA-256 in hex, in order, each followed by `\n`."""
        lines = "".join(f"{hashlib.sha256(data).hexdigest()}\n" for data in self.pictures)
        return hashlib.sha256(lines.encode("ascii")).hexdigest()

    def tensors(self, size: InputSize) -> npt.NDArray[np.uint8]:
        """Return the pictures as the network's input: u8 `[n, height, width, 3]`."""
        return np.concatenate([to_tensor(decode(data, self.limits), size) for data in self.pictures])


def gather(source: str | None, count: int, settings: Settings, scratch: Path) -> CalibrationSet:
    """Read the pictures of a source.

    Args:
        source: folder, `s3://` prefix, or None for the photographs of scikit-image.
        count: number of pictures at most; if there are more, they are chosen evenly over the sorted names.
        settings: limits of a picture, and the S3 connection.
        scratch: folder for temporary files.

    Raises:
        SetupError: no source is given and scikit-image is not installed.
        BundleNotFound: the folder does not exist.
        SourceError: the source is empty, or none of its files is a picture.
        ServiceError: S3 fails.
    """
    if source is None:
        return _read(spread(_built_in(scratch), count), Path.read_bytes, settings.limits, source=BUILT_IN)
    if source.startswith("s3://"):
        with ObjectStore(settings.s3) as store:
            return from_store(S3Url.folder(source), store, count, settings.limits)
    return from_folder(Path(source), count, settings.limits)


def check_folder(source: str | None) -> None:
    """Refuse a missing folder before any work is done, even if no variant turns out to need it.

    Raises:
        BundleNotFound: the folder does not exist.
    """
    if source is not None and not source.startswith("s3://") and not Path(source).is_dir():
        raise BundleNotFound(f"no calibration folder {source}; give a folder of photographs, or s3://bucket/prefix/")


def from_folder(folder: Path, count: int, limits: LimitSettings) -> CalibrationSet:
    """Read the pictures of a folder and its subfolders; see `gather`."""
    check_folder(str(folder))
    try:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        found = sorted(islice(files, MAX_LISTED))
        return _read(spread(found, count), Path.read_bytes, limits, source=str(folder))
    except OSError as error:
        raise SourceError(f"calibration folder {folder} cannot be read: {error}; check its permissions") from error


def from_store(folder: S3Url, store: Store, count: int, limits: LimitSettings) -> CalibrationSet:
    """Read the pictures under an S3 prefix; see `gather`."""

    def fetch(key: str) -> bytes:
        return store.get(folder / key, max_bytes=limits.max_object_mib * _MIB)[0]

    keys = sorted(item.key for item in islice(store.list(folder), MAX_LISTED) if item.size)
    return _read(spread(keys, count), fetch, limits, source=str(folder))


def not_compared(pictures: npt.NDArray[np.uint8], compared: int) -> npt.NDArray[np.uint8]:
    """Return the pictures to calibrate on: those behind the first `compared`, or all if there are no others."""
    return pictures[compared:] if len(pictures) > compared else pictures


def spread(names: Sequence[_T], count: int) -> list[_T]:
    """Return at most `count` of the names, evenly spread and in order."""
    step = max(len(names) / count, 1)
    return [names[int(index * step)] for index in range(min(count, len(names)))]


def _built_in(scratch: Path) -> list[Path]:
    try:
        return sorted(copy_photographs(scratch))
    except StandaloneError as error:
        raise SetupError(
            "no pictures for calibration and comparison; give --calibration FOLDER or s3://bucket/prefix/, or install "
            "scikit-image, which includes photographs"
        ) from error


def _read(names: Sequence[_T], fetch: Callable[[_T], bytes], limits: LimitSettings, *, source: str) -> CalibrationSet:
    """Read the files and keep those that are pictures.

    Raises:
        SourceError: none is.
    """
    pictures, skipped = [], []
    for name in names:
        try:
            data = fetch(name)
            decode(data, limits)
        except ImageError as error:
            skipped.append(f"{name}: {error}")
        else:
            pictures.append(data)
    if not pictures:
        reason = f"none of its {len(skipped)} files is a picture ({skipped[0]})" if skipped else "it contains no files"
        raise SourceError(f"calibration set {source}: {reason}; give a folder or prefix of photographs")
    return CalibrationSet(source, tuple(pictures), tuple(skipped), limits)
