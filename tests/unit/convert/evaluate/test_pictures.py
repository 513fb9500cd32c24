"""Pictures to evaluate a network on, and the true masks that belong to them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from worker.contract.errors import SourceError, StandaloneError
from worker.contract.settings import LimitSettings
from worker.convert.evaluate import pictures

LIMITS = LimitSettings()


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path):
    folder = touch(tmp_path / "in", "b.jpg", "a.png", ".DS_Store")

    found, what = pictures.gather(folder, tmp_path / "scratch")

    assert [path.name for path in found] == ["a.png", "b.jpg"]
    assert what == f"2 pictures from {folder}"


def test_built_in_photographs_decode(tmp_path):
    found, what = pictures.gather(None, tmp_path)

    assert "photographs" in what
    assert pictures.read(found[0], LIMITS).width > 100


def test_without_photographs_shapes_are_generated_and_described(tmp_path, monkeypatch):
    def absent(_):
        raise StandaloneError("not installed")

    monkeypatch.setattr(pictures, "copy_photographs", absent)

    found, what = pictures.gather(None, tmp_path / "scratch")

    assert what == "3 generated shapes (scikit-image, which includes photographs, is not installed)"
    for path in found:
        grey = np.asarray(pictures.read(path, LIMITS).rgb)[..., 0]
        assert grey.shape == (384, 384)
        assert int(grey.max()) - int(grey.min()) > 100


@pytest.mark.parametrize(("files", "message"), [((), "contains no files"), (None, "cannot be read: No such file")])
def test_a_folder_without_pictures(tmp_path, files, message):
    folder = tmp_path / "in" if files is None else touch(tmp_path / "in", *files)

    with pytest.raises(SourceError, match=message):
        pictures.gather(folder, tmp_path)


def test_a_file_that_is_not_a_picture_is_named(tmp_path):
    path = touch(tmp_path, "a.png") / "a.png"

    with pytest.raises(SourceError, match=rf"{path}: .*remove it from the folder"):
        pictures.read(path, LIMITS)


def test_masks_are_paired_by_stem(tmp_path):
    found, _ = pictures.gather(touch(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg"), tmp_path)
    masks = touch(tmp_path / "masks", "c.png", "a.png", "other.png")

    assert pictures.true_masks(found, masks) == {0: masks / "a.png", 2: masks / "c.png"}


def test_masks_of_other_pictures_are_refused(tmp_path):
    found, _ = pictures.gather(touch(tmp_path / "in", "a.jpg"), tmp_path)

    with pytest.raises(
        SourceError, match=r"has no mask for any picture; name each mask like its picture, such as a\.png"
    ):
        pictures.true_masks(found, touch(tmp_path / "masks", "other.png"))


def test_a_mask_is_resized_to_the_size_of_its_picture(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    Image.new("L", (30, 20), 255).save(tmp_path / "truth.png")

    mask, truth = pictures.with_true_mask(
        np.full((64, 64), 77, np.uint8), tmp_path / "picture.png", tmp_path / "truth.png", LIMITS
    )

    assert mask.shape == truth.shape == (20, 30)
    assert (int(mask[0, 0]), int(truth[0, 0])) == (77, 255)


def test_truth_of_zeros_and_ones_is_recognised(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    Image.new("L", (30, 20), 1).save(tmp_path / "truth.png")

    assert (pictures.true_mask(tmp_path / "picture.png", tmp_path / "truth.png", LIMITS) == 255).all()


def test_a_true_mask_of_another_size_is_refused(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    Image.new("L", (20, 30), 255).save(tmp_path / "truth.png")

    with pytest.raises(SourceError, match=r"truth.png has 20 x 30 pixels, but its picture picture.png has 30 x 20"):
        pictures.true_mask(tmp_path / "picture.png", tmp_path / "truth.png", LIMITS)


def test_a_true_mask_of_unknown_levels_is_refused_by_name(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    Image.new("L", (30, 20), 9).save(tmp_path / "truth.png")

    with pytest.raises(SourceError, match=r"truth.png: its highest level is 9"):
        pictures.true_mask(tmp_path / "picture.png", tmp_path / "truth.png", LIMITS)
