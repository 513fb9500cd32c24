"""Exams: pairs of pictures and true masks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unit.bench.quality.small_exam import write_exam
from worker.bench.quality import exam
from worker.contract.errors import SourceError
from worker.contract.settings import LimitSettings

LIMITS = LimitSettings()


def test_pictures_and_true_masks_are_paired_in_order(tmp_path):
    folder = write_exam(tmp_path / "mine")
    exam.write_facts(folder, "Boxes.", "CC0-1.0")

    found = exam.load(folder, "mine")

    assert [path.name for path in found.pictures] == ["a.png", "b.png", "c.png"]
    assert [path.parent.name for path in found.truths] == ["masks"] * 3
    assert (found.description, found.licence) == ("Boxes.", "CC0-1.0")
    assert (found.truth(0, LIMITS)[20:60, 20:60] == 255).all()


def test_the_digest_covers_the_pictures_in_use(tmp_path):
    folder = write_exam(tmp_path / "mine")
    whole, part = exam.load(folder, "mine"), exam.load(folder, "mine", count=2)

    Image.new("L", (100, 80), 255).save(folder / "masks/c.png")

    assert len(part.pictures) == 2
    assert exam.load(folder, "mine").digest != whole.digest != part.digest
    assert exam.load(folder, "mine", count=2).digest == part.digest


def test_a_picture_without_a_true_mask_is_refused(tmp_path):
    folder = write_exam(tmp_path / "mine")
    (folder / "masks/b.png").unlink()

    with pytest.raises(SourceError, match=r"lacks the true masks of 1 of 3 pictures, such as b\.png"):
        exam.load(folder, "mine")


def test_a_true_mask_of_another_size_is_refused(tmp_path):
    folder = write_exam(tmp_path / "mine")
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(folder / "masks/b.png")

    with pytest.raises(SourceError, match="must have the size of its picture"):
        exam.load(folder, "mine").truth(1, LIMITS)


def test_facts_that_are_no_object_are_refused(tmp_path):
    folder = write_exam(tmp_path / "mine")
    (folder / "exam.json").write_text("[]")

    with pytest.raises(SourceError, match=r"exam.json must hold one JSON object"):
        exam.load(folder, "mine")
