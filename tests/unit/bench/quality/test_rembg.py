"""rembg runs apart: a stand-in environment, the weights under the name rembg expects, no downloads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.bench.quality import rembg
from worker.bench.quality.rembg import RembgNetwork
from worker.contract.errors import SetupError

STAND_IN = """
import os, pathlib
import numpy as np
from PIL import Image

def new_session(name):
    path = pathlib.Path(os.environ["U2NET_HOME"]) / f"{name}.onnx"
    if not path.exists():
        raise RuntimeError("would download")
    assert os.environ["HTTPS_PROXY"] and os.environ["OMP_NUM_THREADS"] == "1"
    return path.read_bytes()

def remove(image, session, only_mask):
    assert only_mask
    return Image.new("L", image.size, session[0])
"""


@pytest.fixture
def cache(tmp_path) -> Path:
    """An environment with a stand-in for rembg, ready as after an installation."""
    folder = tmp_path / "cache" / f"rembg-{rembg.VERSION}"
    site = folder / "site"
    (site / "rembg").mkdir(parents=True)
    (site / "rembg/__init__.py").write_text(STAND_IN)
    for name in ("rembg", "onnxruntime"):
        (site / f"{name}-1.0.dist-info").mkdir()
        (site / f"{name}-1.0.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "bin").mkdir()
    python = folder / "bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "ready").touch()
    return tmp_path / "cache"


def cpu() -> tuple[int, ...]:
    import os

    return (min(os.sched_getaffinity(0)),)


def test_masks_come_back_at_the_size_of_the_pictures(cache, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"\x7bweights")
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")

    done = rembg.run(
        RembgNetwork.parse(f"u2netp={tmp_path / 'mine.onnx'}"), (tmp_path / "a.png",), tmp_path / "out", cache, cpu()
    )

    mask = np.load(tmp_path / "out/0.npy")
    assert (mask.shape, mask.dtype, int(mask.max())) == ((20, 30), np.uint8, 0x7B)
    assert done.versions["rembg"] == "1.0"
    assert done.peak_mib > 5


def test_a_failure_is_quoted(cache, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"w")

    with pytest.raises(SetupError, match=r"rembg u2netp failed with exit status 1: .*No such file"):
        rembg.run(RembgNetwork("u2netp", tmp_path / "mine.onnx"), (tmp_path / "b.png",), tmp_path / "out", cache, cpu())


@pytest.mark.parametrize(
    ("text", "message"),
    [("u2netp", "is not SESSION=FILE"), ("=x", "is not SESSION=FILE"), ("a=/no/x.onnx", "not a file")],
)
def test_what_is_no_network_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        RembgNetwork.parse(text)


def test_an_installation_that_fails_says_why_and_is_tried_again(tmp_path, monkeypatch):
    seen: list[list[str]] = []

    def fails_at_pip(command: list[str], **_: object) -> None:
        seen.append(command)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command, stderr="looking\nERROR: no such package\n")

    monkeypatch.setattr(rembg.subprocess, "run", fails_at_pip)

    for _ in range(2):
        with pytest.raises(
            SetupError, match=r"rembg\[cpu,cli\]==2.0.86 cannot be installed into .*: ERROR: no such package"
        ):
            rembg.interpreter(tmp_path)
    assert [command[1:3] for command in seen] == [["-m", "venv"], ["-m", "pip"]] * 2
