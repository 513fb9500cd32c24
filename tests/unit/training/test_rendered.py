"""The renderer on shapes whose picture is known, and the exam built with it."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from worker.bench.quality import exam
from worker.contract.errors import SetupError
from worker.contract.settings import LimitSettings
from worker.training import exams, raster, rendered
from worker.training.compose import Composite
from worker.training.exams import ExamKind
from worker.training.meshes import ModelLibrary, parse_obj

CUBE = """
mtllib cube.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
v 1 0 1
v 1 1 1
v 0 1 1
usemtl red
f 1 2 3 4
f 5 6 7 8
f 1 2 6 5
f 4 3 7 8
f 1 4 8 5
f -7 -6 -2 -3
"""
MATERIAL = b"newmtl red\nKd 0.8 0.1 0.1\nKs 0.2 0.2 0.2\nNs 20\n"


def cube(material: bytes = MATERIAL):
    return parse_obj(CUBE, {"cube.mtl": material}.get)


def test_nearer_triangles_hide_farther_ones():
    far = [(0, 0, 2.0), (40, 0, 2.0), (0, 40, 2.0)]
    near = [(0, 0, 1.0), (10, 0, 1.0), (0, 10, 1.0)]

    seen = raster.visible(np.array([far, near]), 20, 20)

    ids = np.full((20, 20), -1)
    ids[seen.rows, seen.columns] = seen.faces
    assert ids[2, 2] == 1
    assert ids[15, 15] == 0
    assert (ids >= 0).all()
    assert (ids == 1).sum() == 55  # pixel centres with x + y <= 10: 10 + 9 + ... + 1
    assert seen.weights.sum(axis=-1) == pytest.approx(np.ones(len(seen.faces)))


def test_what_lies_outside_the_picture_is_cut_off():
    whole = np.array(
        [[(-500, -500, 1.0), (900, -500, 1.0), (-500, 900, 1.0)], [(30, 30, 0.5), (40, 30, 0.5), (30, 40, 0.5)]]
    )

    seen = raster.visible(whole, 16, 24)

    assert len(seen.faces) == 16 * 24
    assert not seen.faces.any()


def test_an_obj_file_becomes_triangles():
    mesh = cube()

    assert mesh.faces.shape == (12, 3)
    assert mesh.materials[mesh.material[0]].colour[0] == pytest.approx(0.8**2.2)
    assert np.linalg.norm(mesh.normals, axis=-1) == pytest.approx(np.ones((12, 3)))
    assert np.abs(mesh.normals[0, 0]) == pytest.approx([0, 0, 1])
    assert set(mesh.faces[10:].ravel()) == {1, 2, 6, 5}  # negative indices count from the end
    assert mesh.opaque


@pytest.mark.parametrize("line", [b"d 0.4\n", b"Tr 0.6\n"])
def test_glass_is_recognised(line):
    assert not cube(MATERIAL + line).opaque


def test_a_library_turns_and_paints_its_models(tmp_path):
    texture = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(texture, "PNG")
    with zipfile.ZipFile(tmp_path / "mine.sh3f", "w") as file:
        file.writestr(
            "PluginFurnitureCatalog.properties",
            "model#1=/mine/cube/cube.obj\nmodelRotation#1=0 0 1 0 1 0 -1 0 0\nname#1=Cube\n",
        )
        file.writestr("mine/cube/cube.obj", CUBE.replace("v 1 0 0", "v 3 0 0"))
        file.writestr("mine/cube/cube.mtl", "newmtl red\nmap_Kd paint.png\n")
        file.writestr("mine/cube/paint.png", texture.getvalue())

    mesh = ModelLibrary(tmp_path / "mine.sh3f").load("cube")

    assert mesh.points.min(axis=0) == pytest.approx([0, 0, -3])
    assert mesh.materials[1].texture[0, 0] == pytest.approx([1, 0, 0])


def test_a_scene_has_the_model_its_exact_mask_and_a_shadow(monkeypatch):
    monkeypatch.setattr(rendered, "SIDE", 96)
    grey = Image.new("RGB", (200, 200), (150, 150, 150))

    one = rendered.scene(cube(), grey, np.random.default_rng(3))
    again = rendered.scene(cube(), grey, np.random.default_rng(3))

    assert np.array_equal(one.pixels, again.pixels)
    inside, outside = one.alpha == 255, one.alpha == 0
    assert 0.05 < inside.mean() < 0.6
    assert inside.sum() + outside.sum() < one.alpha.size  # soft edges
    red, green = one.pixels[inside][:, 0].mean(), one.pixels[inside][:, 1].mean()
    assert red > 1.5 * green
    assert np.median(one.pixels[outside]) == pytest.approx(150, abs=6)


def test_the_shadow_is_not_part_of_the_mask(monkeypatch):
    monkeypatch.setattr(rendered, "SIDE", 96)
    grey = Image.new("RGB", (200, 200), (150, 150, 150))
    lit = np.ones((96, 96), np.float32)

    with_shadow = rendered.scene(cube(), grey, np.random.default_rng(4))
    monkeypatch.setattr(rendered, "_ground_light", lambda *_: lit)
    without = rendered.scene(cube(), grey, np.random.default_rng(4))

    darker = without.pixels.astype(int).mean(-1) - with_shadow.pixels.mean(-1) > 15
    assert np.array_equal(with_shadow.alpha, without.alpha)
    assert darker.sum() > 40
    assert not darker[with_shadow.alpha == 255].any()


@pytest.fixture
def boxes(monkeypatch) -> ExamKind:
    def pictures(downloads, count, on_progress):
        for number in range(count):
            alpha = np.zeros((40, 50), np.uint8)
            alpha[10:20, 10 + number : 30] = 255
            yield Composite(np.repeat(alpha[..., None], 3, axis=-1), alpha)

    kind = ExamKind("boxes", (exams.sources.FURNITURE,), 3, pictures)
    monkeypatch.setitem(exams.KINDS, "rendered", kind)
    return kind


def test_an_exam_is_built_as_bench_quality_reads_it(boxes, tmp_path):
    said: list[str] = []

    sentence = exams.build("rendered", tmp_path / "mine", tmp_path / "downloads", said.append)

    found = exam.load(tmp_path / "mine", "mine")
    assert sentence == f"rendered: 3 pictures in {tmp_path / 'mine'}"
    assert (len(found.pictures), found.description) == (3, "boxes")
    assert found.licence.startswith("sweethome3d-furniture_1.8-1_all.deb (CC-BY-3.0")
    assert (found.truth(1, LimitSettings()) == 255).sum() == 10 * 19
    assert said[0].startswith("sweethome3d-furniture: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_in_use_is_left_alone(boxes, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(SetupError, match="is not empty"):
        exams.build("rendered", tmp_path, tmp_path / "downloads", print)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_exam_that_needs_the_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(exams.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(SetupError, match=r"needs scipy, skimage, OpenEXR: pip install 'maskmill\[starter\]'"):
        exams.build("stamps", tmp_path / "stamps", tmp_path / "downloads", lambda _: None)


def test_the_command_offers_every_exam():
    from worker.cli.bench_quality import EXAMS

    assert set(EXAMS) == set(exams.KINDS)


def test_packages_of_the_rendered_exam_are_for_evaluation_only():
    assert all(package.evaluation_only for package in exams.KINDS["rendered"].packages)
