"""`worker.convert.package`: a bundle is written completely or not at all, and its manifest describes its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as op

from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.convert import package
from worker.model.inference import runtime

FACTS = {"description": "adds one", "license": "Apache-2.0", "source": {"generator": "test"}}


def tiny(add: float = 1.0) -> ov.Model:
    image = op.parameter([1, 3, 32, 32], np.float32, name="image")
    total = op.add(image, op.constant(np.float32(add)))
    return ov.Model([op.result(total)], [image], "tiny")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_manifest_describes_every_file(tmp_path):
    models = {(InputSize.square(32), "fp32"): tiny(), (InputSize.square(32), "int8"): tiny()}

    dest = package.write_bundle(tmp_path / "new" / "tiny", "tiny", models, **FACTS, tools={"nncf": "3.4.0"})

    files = tree(dest)
    manifest = json.loads(files.pop("manifest.json"))
    assert set(files) == {
        f"openvino_{precision}/tiny_32x32_{precision}.{suffix}"
        for precision in ("fp32", "int8")
        for suffix in ("xml", "bin")
    }
    assert manifest == {
        "schema_version": 1,
        "name": "tiny",
        **FACTS,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
        "tools": {"openvino": ov.__version__.split("-")[0], "nncf": "3.4.0"},
    }


def test_a_written_network_can_be_loaded(tmp_path):
    dest = package.write_bundle(tmp_path / "tiny", "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)

    model = runtime.core().read_model(dest / "openvino_fp32" / "tiny_32x32_fp32.xml")

    assert model.input(0).get_element_type() == ov.Type.f32
    assert list(model.input(0).shape) == [1, 3, 32, 32]


def test_other_users_can_read_the_bundle(tmp_path):
    dest = package.write_bundle(tmp_path / "tiny", "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)

    assert dest.stat().st_mode & 0o777 == 0o755


def test_a_bundle_is_replaced_as_a_whole(tmp_path):
    dest = package.write_bundle(
        tmp_path / "tiny",
        "tiny",
        {(InputSize.square(32), "fp32"): tiny(), (InputSize.square(32), "int8"): tiny()},
        **FACTS,
    )

    package.write_bundle(dest, "tiny", {(InputSize.square(32), "fp32"): tiny(2.0)}, **FACTS)

    assert set(tree(dest)) == {
        "manifest.json",
        "openvino_fp32/tiny_32x32_fp32.bin",
        "openvino_fp32/tiny_32x32_fp32.xml",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("error", [RuntimeError("no space left"), OSError("no space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
def test_a_failure_half_way_leaves_the_previous_content(tmp_path, monkeypatch, error, there):
    dest = tmp_path / "tiny"
    if there:
        package.write_bundle(dest, "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)
    before = tree(tmp_path)
    save = ov.save_model

    def second_fails(model: ov.Model, path: Path, **options: object) -> None:
        if "int8" in path.name:
            raise error
        save(model, path, **options)

    monkeypatch.setattr(package.ov, "save_model", second_fails)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BundleError
    with pytest.raises(expected):
        package.write_bundle(
            dest, "tiny", {(InputSize.square(32), "fp32"): tiny(2.0), (InputSize.square(32), "int8"): tiny()}, **FACTS
        )

    assert tree(tmp_path) == before
    assert list(tmp_path.iterdir()) == ([dest] if there else [])


def test_the_old_bundle_is_restored_if_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    dest = package.write_bundle(tmp_path / "tiny", "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)
    before = tree(tmp_path)
    rename = Path.rename

    def refuse_the_new_one(path: Path, target: Path) -> Path:
        if (path / "manifest.json").exists() and not path.name.endswith(".old") and path != dest:
            raise PermissionError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(BundleError, match="its previous content is unchanged"):
        package.write_bundle(dest, "tiny", {(InputSize.square(32), "fp32"): tiny(2.0)}, **FACTS)

    assert tree(tmp_path) == before


def test_a_folder_that_is_not_a_bundle_is_not_replaced(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")

    with pytest.raises(BundleError, match="is not a bundle"):
        package.write_bundle(photos, "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)

    assert tree(photos) == {"cat.jpg": b"cat"}


def test_an_empty_folder_is_accepted(tmp_path):
    (tmp_path / "tiny").mkdir()

    dest = package.write_bundle(tmp_path / "tiny", "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)

    assert (dest / "manifest.json").is_file()


def test_a_file_in_place_of_a_parent_folder_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(BundleError, match="file"):
        package.write_bundle(tmp_path / "file" / "tiny", "tiny", {(InputSize.square(32), "fp32"): tiny()}, **FACTS)


@pytest.mark.parametrize(
    ("models", "named"), [({}, "no model"), ({(InputSize.square(32), "fp8"): None}, "fp8; known: fp32")]
)
def test_invalid_models_are_refused(tmp_path, models, named):
    with pytest.raises(BundleError, match=named):
        package.write_bundle(tmp_path / "tiny", "tiny", models, **FACTS)

    assert not list(tmp_path.iterdir())
