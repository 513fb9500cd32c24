"""Photographs for INT8: what is calibrated on is never judged on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from support.photographs import photograph
from worker.contract.errors import BundleNotFound, SetupError, SourceError, StandaloneError
from worker.contract.input_size import InputSize
from worker.convert.int8 import pictures

SIZE = InputSize.square(64)


def folder_of(tmp_path, count):
    for index in range(count):
        Image.new("RGB", (20, 10), (index, 0, 0)).save(tmp_path / f"{index:02}.png")
    return str(tmp_path)


def test_the_photographs_of_scikit_image_are_split():
    got = pictures.gather(None, SIZE)

    assert set(got.names[0]).isdisjoint(got.names[1])
    assert got.calibration.shape == (20, 64, 64, 3) and got.judged.shape == (12, 64, 64, 3)
    assert got.calibration.dtype == np.uint8
    flat = got.calibration.reshape(20, -1)
    assert not any((flat == one.reshape(-1)).all(1).any() for one in got.judged)
    assert len(np.unique(flat, axis=0)) == 20  # every view is another picture
    assert got.as_dict()["calibrated_on"] == "20 pictures of 5 photographs"


def test_views_are_the_whole_the_mirrored_and_crops():
    (whole, mirrored, crop, _) = pictures.gather(None, SIZE).judged[8:]

    small = np.array(photograph("coffee.png").resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(whole.astype(int) - small).max() <= 2
    assert (mirrored == whole[:, ::-1]).all()
    assert (crop != whole).any()


def test_large_networks_are_run_on_fewer_pictures():
    got = pictures.gather(None, InputSize.square(1024))

    assert (len(got.calibration), len(got.judged)) == (10, 6)


def test_every_third_picture_of_a_folder_is_kept_to_judge_on(tmp_path):
    got = pictures.gather(folder_of(tmp_path, 9), SIZE)

    assert got.calibration[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 6, 7]
    assert got.judged[:, 0, 0, 0].tolist() == [2, 5, 8]
    assert got.as_dict()["judged_on"] == "3 pictures of 3 other photographs"
    assert tmp_path.name in got.source and str(tmp_path) not in got.source


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(SourceError, match="holds 5 pictures; give at least 6"):
        pictures.gather(folder_of(tmp_path, 5), SIZE)
    with pytest.raises(BundleNotFound, match="no calibration folder"):
        pictures.gather(str(tmp_path / "nowhere"), SIZE)


def test_without_scikit_image_the_error_names_the_remedies(monkeypatch):
    def nothing(_):
        raise StandaloneError("not installed")

    monkeypatch.setattr(pictures, "copy_photographs", nothing)

    with pytest.raises(SetupError, match=r"--calibration, or install scikit-image.*maskmill\[import\]"):
        pictures.gather(None, SIZE)
