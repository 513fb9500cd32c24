"""A network that its author publishes, from the ONNX file to masks in S3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import commands
from support.installation import Installation
from support.photographs import photograph
from support.public_networks import u2netp

NAMES = ("astronaut", "chelsea", "coffee")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        photograph(f"{name}.png").save(folder / f"{name}.jpg", quality=92)
    return folder


def test_u2netp_from_the_published_file_to_masks_in_s3(installation: Installation, photos: Path, tmp_path: Path):
    bundle = tmp_path / "u2netp"
    done = commands.run("worker", "model", "import", str(u2netp()), "--output", str(bundle), settings={})
    assert done.code == 0, done.err
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["verification"]["max_levels"] in (0, 1)
    assert "activation: probability (Sigmoid (1959) limits the output" in done.out
    environment = installation.environment | {"MASKMILL_MODEL__SOURCE": str(bundle)}

    with commands.workers(environment, tmp_path / "worker.log"):
        dest = f"s3://{installation.bucket}/masks/"
        sent = commands.run(
            *("producer", "submit", str(photos), dest, "--wait", "--json", "--timeout", "90"), settings=environment
        )
        assert sent.code == 0, sent.err
        job = sent.lines[0]["job"]
        fetched = commands.run("producer", "download", job, str(tmp_path / "out"), settings=environment)

    assert fetched.code == 0, fetched.err
    masks = {path.stem: np.array(Image.open(path)) for path in (tmp_path / "out").rglob("*.png")}
    assert set(masks) == set(NAMES)
    for name, mask in masks.items():
        # A second sigmoid would leave only the grey levels 128 to 186.
        assert np.mean((mask < 32) | (mask > 223)) > 0.8, name
    height, width = masks["astronaut"].shape
    assert masks["astronaut"][height // 4, int(width * 0.44)] > 223  # her face
    assert masks["astronaut"][: height // 8, : width // 8].max() < 32
    assert masks["coffee"][int(height * 0.45), int(width * 0.5)] > 223
