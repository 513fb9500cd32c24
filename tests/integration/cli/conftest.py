"""Fixtures: a bundle of tiny networks in three precisions, and three pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from integration.model.tiny_network import SIZE, build
from unit.model.bundle_files import manifest
from worker.model.inference.runtime import ov


def _save(root: Path, precision: str, **how) -> None:
    folder = root / f"openvino_{precision}"
    folder.mkdir(parents=True)
    ov.save_model(
        build(**how), str(folder / f"tiny_{SIZE}x{SIZE}_{precision}.xml"), compress_to_fp16=precision == "fp16"
    )


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Write a bundle of fp32, fp16 and an `int8` with other weights, so that its masks must disagree."""
    root = tmp_path / "bundle"
    _save(root, "fp32")
    _save(root, "fp16")
    _save(root, "int8", gain=-1.0)
    (root / "LICENSE").write_text("MIT\n")
    describe(root)
    return root


def describe(root: Path, **changes: object) -> None:
    """Write the manifest of the files in the bundle."""
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    files.pop("manifest.json", None)
    (root / "manifest.json").write_bytes(manifest(files, **changes))
    assert json.loads((root / "manifest.json").read_text())["files"]


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(folder / f"picture-{index}.png")
    return folder
