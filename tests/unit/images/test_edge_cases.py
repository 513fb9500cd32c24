"""Every edge-case image has exactly the expected result."""

import numpy as np
import pytest
from PIL import Image

from support import edge_case_images
from worker.contract.errors import ImageError
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.render import render
from worker.images.tensor import to_tensor

EXPECTED = {name: expected for name, (_, expected) in edge_case_images._FILES.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("awkward")
    assert edge_case_images.make(path) == EXPECTED
    return path


@pytest.mark.parametrize("name", [n for n, e in EXPECTED.items() if e.outcome == "failed"])
def test_bad_file_fails_with_its_code(folder, name):
    with pytest.raises(ImageError) as caught:
        decode((folder / name).read_bytes(), LimitSettings())
    assert caught.value.code == EXPECTED[name].code


@pytest.mark.parametrize("name", [n for n, e in EXPECTED.items() if e.outcome == "ok"])
def test_good_file_is_rendered_in_every_kind(folder, name):
    picture = decode((folder / name).read_bytes(), LimitSettings())
    assert (picture.width, picture.height) == EXPECTED[name].size
    tensor = to_tensor(picture, InputSize.square(64))
    subject = (tensor[0, :, :, 1] < 150).astype(np.uint8) * 255
    options = OutputOptions(outputs=tuple(OutputKind), crop=True, refine=True, max_side=100)
    outputs = dict(render(picture, subject, options)[1])
    assert set(outputs) == set(OutputKind)
    assert all(data.startswith(b"\x89PNG") for data in outputs.values())


@pytest.mark.parametrize("name", [n for n, e in EXPECTED.items() if e.outcome == "ok" and n != "one-pixel.png"])
def test_subject_is_dark_in_the_middle_of_a_light_background(folder, name):
    picture = decode((folder / name).read_bytes(), LimitSettings())
    grey = np.asarray(picture.rgb.convert("L")).astype(int)
    centre, corner = grey[picture.height // 2, picture.width // 2 + 4], grey[2, 2]
    assert centre < 110
    assert corner > 180


def test_rotated_is_upright(folder):
    picture = decode((folder / "rotated.jpg").read_bytes(), LimitSettings())
    expected = edge_case_images.scene((120, 160))
    assert np.abs(np.asarray(picture.rgb).astype(int) - np.asarray(expected)).mean() < 4


def test_files_are_the_same_every_time(folder, tmp_path):
    edge_case_images.make(tmp_path)
    for name in EXPECTED:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_name_contains_special_characters():
    assert any(" " in n and "#" in n and "%" in n and not n.isascii() for n in EXPECTED)


def test_scene_has_both_colours():
    colours = {colour for _, colour in edge_case_images.scene().getcolors()}
    assert {edge_case_images.BACKGROUND, edge_case_images.SUBJECT} <= colours
    assert isinstance(edge_case_images.scene(), Image.Image)
