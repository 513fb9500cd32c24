"""`worker.convert.calibration`: which pictures are chosen, how they are prepared, and the errors if there are none."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.contract.errors import BundleNotFound, ObjectMissing, SetupError, SourceError, StandaloneError
from worker.contract.input_size import InputSize
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings, Settings
from worker.contract.storage.s3 import ObjectInfo
from worker.convert import calibration
from worker.images.decode import decode
from worker.images.tensor import to_tensor

LIMITS = LimitSettings()


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (level, 0, 255 - level)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(tmp_path: Path, count: int) -> Path:
    for index in range(count):
        (tmp_path / f"{index:02}.png").write_bytes(png(index))
    return tmp_path


class Bucket:
    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def list(self, folder: S3Url) -> Iterator[ObjectInfo]:
        for key, data in self.objects.items():
            if key.startswith(folder.key):
                yield ObjectInfo(key.removeprefix(folder.key), len(data), "etag", {})

    def get(self, place: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        if place.key not in self.objects:
            raise ObjectMissing(str(place))
        return self.objects[place.key], ObjectInfo(place.key, 0, "etag", {})


def test_pictures_of_a_folder_and_its_subfolders_are_read_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b" / "c.png").write_bytes(png(2))
    (tmp_path / ".hidden.png").write_bytes(png(3))

    got = calibration.from_folder(tmp_path, 32, LIMITS)

    assert got.pictures == (png(1), png(2))
    assert not got.skipped


def test_many_pictures_are_sampled_evenly(tmp_path):
    got = calibration.from_folder(folder_of(tmp_path, 10), 3, LIMITS)

    assert got.pictures == (png(0), png(3), png(6))


@pytest.mark.parametrize(("have", "want", "got"), [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (6, 4, [0, 1, 3, 4])])
def test_a_choice_is_even_and_never_repeats(have, want, got):
    assert calibration.spread(range(have), want) == got


@pytest.mark.parametrize(
    ("count", "compared", "got"), [(6, 2, [2, 3, 4, 5]), (2, 1, [1]), (1, 1, [0]), (3, 0, [0, 1, 2])]
)
def test_what_is_compared_on_is_not_calibrated_on(count, compared, got):
    pictures = np.arange(count, dtype=np.uint8)

    assert calibration.not_compared(pictures, compared).tolist() == got


def test_pictures_are_prepared_as_the_worker_prepares_them(tmp_path):
    got = calibration.from_folder(folder_of(tmp_path, 2), 2, LIMITS).tensors(InputSize.square(32))

    assert got.dtype == np.uint8
    assert got.shape == (2, 32, 32, 3)
    assert np.array_equal(got[1:], to_tensor(decode(png(1), LIMITS), InputSize.square(32)))


def test_the_digest_is_that_of_the_pictures_in_order(tmp_path):
    got = calibration.from_folder(folder_of(tmp_path, 2), 2, LIMITS)

    lines = "".join(f"{hashlib.sha256(png(level)).hexdigest()}\n" for level in (0, 1))
    assert got.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_a_file_that_is_not_a_picture_is_skipped_and_named(tmp_path):
    folder_of(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("no picture")

    got = calibration.from_folder(tmp_path, 32, LIMITS)

    assert got.pictures == (png(0),)
    assert len(got.skipped) == 1
    assert "notes.txt" in got.skipped[0]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BundleNotFound, match=r"no calibration folder .*/nowhere"):
        calibration.from_folder(tmp_path / "nowhere", 32, LIMITS)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match=rf"{tmp_path}: it contains no files"):
        calibration.from_folder(tmp_path, 32, LIMITS)


def test_a_folder_without_pictures_is_named_with_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(SourceError, match=rf"{tmp_path}: none of its 1 files is a picture .*notes.txt"):
        calibration.from_folder(tmp_path, 32, LIMITS)


def test_pictures_are_read_from_a_prefix():
    bucket = Bucket({"in/b.png": png(2), "in/a.png": png(1), "in/folder/": b"", "out/c.png": png(3)})

    got = calibration.from_store(S3Url.folder("s3://bucket/in"), bucket, 32, LIMITS)

    assert got.pictures == (png(1), png(2))
    assert got.source == "s3://bucket/in/"


def test_an_empty_prefix_is_named():
    with pytest.raises(SourceError, match="s3://bucket/in/: it contains no files"):
        calibration.from_store(S3Url.folder("s3://bucket/in"), Bucket({}), 32, LIMITS)


def test_without_a_source_the_included_photographs_are_used(tmp_path):
    got = calibration.gather(None, 3, Settings(), tmp_path / "scratch")

    assert got.source == calibration.BUILT_IN
    assert len(got.pictures) == 3


def test_without_a_source_and_without_photographs_the_error_names_the_remedy(tmp_path, monkeypatch):
    def nothing(folder: Path) -> list[Path]:
        raise StandaloneError("not installed")

    monkeypatch.setattr(calibration, "copy_photographs", nothing)

    with pytest.raises(SetupError, match=r"--calibration FOLDER .* scikit-image"):
        calibration.gather(None, 3, Settings(), tmp_path)
