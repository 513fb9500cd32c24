"""Calibration pictures from a real bucket."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from support.installation import Installation
from worker.contract.errors import ServiceError, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.convert import calibration


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(installation: Installation, store: ObjectStore) -> S3Url:
    folder = S3Url(installation.bucket, "sample/")
    for index in range(4):
        store.put(folder / f"{index}.png", png(index), content_type="image/png")
    store.put(folder / "notes.txt", b"no picture", content_type="text/plain")
    return folder


def test_a_prefix_is_sampled_evenly(installation, folder):
    got = calibration.gather(str(folder), 3, installation.settings, Path("unused"))

    assert got.pictures == (png(0), png(1), png(3))
    assert got.source == str(folder)


def test_a_file_that_is_not_a_picture_is_named(installation, folder):
    got = calibration.gather(str(folder).rstrip("/"), 32, installation.settings, Path("unused"))

    assert len(got.pictures) == 4
    assert "notes.txt" in got.skipped[0]


@pytest.mark.usefixtures("folder")
def test_an_empty_prefix_is_named(installation):
    with pytest.raises(SourceError, match=f"s3://{installation.bucket}/nothing/: it contains no files"):
        calibration.gather(f"s3://{installation.bucket}/nothing", 32, installation.settings, Path("unused"))


def test_a_missing_bucket_is_named(installation):
    with pytest.raises(ServiceError, match="no-such-bucket"):
        calibration.gather("s3://no-such-bucket/p", 32, installation.settings, Path("unused"))
