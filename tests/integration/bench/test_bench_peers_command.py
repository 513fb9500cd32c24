"""`worker bench peers`: a whole contest between real programs; a stand-in takes the place of rembg's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from support import onnx_networks
from worker.bench.peers import pictures, rembg_folder
from worker.bench.quality import rembg
from worker.bench.quality.rembg import RembgNetwork
from worker.cli import cli
from worker.contract.errors import SetupError
from worker.convert.importing import ImportRequest, LicenceFacts, import_network

STAND_IN = f"""#!{sys.executable} -P
import os, sys, time
from pathlib import Path
from PIL import Image

command, option, session, source, output = sys.argv[1:]
assert (command, option) == ("p", "-m") and (Path(os.environ["U2NET_HOME"]) / f"{{session}}.onnx").exists()
time.sleep(0.3)  # the start of the program, which does not count
for path in sorted(Path(source).iterdir()):
    picture = Image.open(path).convert("RGB")
    if os.environ.get("LEAVE_OUT") != path.stem:
        picture.putalpha(Image.new("L", picture.size, 255))
        picture.save(Path(output) / f"{{path.stem}}.png")
"""


@pytest.fixture
def network(tmp_path) -> RembgNetwork:
    return RembgNetwork("u2netp", onnx_networks.save(onnx_networks.of_form("sigmoid"), tmp_path / "net.onnx"))


@pytest.fixture
def cache(tmp_path) -> Path:
    """Rembg's environment, ready as after an installation."""
    folder = tmp_path / "cache/environments" / f"rembg-{rembg.VERSION}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin/rembg").write_text(STAND_IN)
    for program in ("python", "rembg"):
        (folder / "bin" / program).chmod(0o755)
    (folder / "ready").touch()
    return folder.parent


def test_all_programs_cut_out_the_same_pictures(network, cache, tmp_path, monkeypatch, capsys):
    import_network(
        ImportRequest(
            network.weights,
            tmp_path / "bundle",
            mean=onnx_networks.MEAN,
            scale=onnx_networks.STD,
            licence=LicenceFacts.of("MIT"),
            measure_memory=False,
        )
    )
    monkeypatch.setenv("MASKMILL_MODEL__SOURCE", str(tmp_path / "bundle"))
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(cache.parent))

    code = cli.main(
        [
            *("bench", "peers", "--rembg", f"u2netp={network.weights}", "--quick", "--megapixels", "0.05"),
            *("--output", str(tmp_path / "out")),
        ],
        standalone_mode=False,
    )

    found = json.loads((tmp_path / "out/peers.json").read_text())
    peers = {row["name"]: row for row in found["peers"]}
    assert code == 0
    assert list(peers) == ["maskmill", "rembg p", "script, OpenVINO", "script, ONNX Runtime"]
    assert all(row["images_per_second"] > 0 and row["peak_mib"] > 5 for row in peers.values())
    assert peers["maskmill"]["ours_is_faster"] == 1
    agreed = {row["peer"]: row for row in found["agreement"]}
    assert agreed["script, ONNX Runtime"]["mae"] < 0.02 and agreed["script, OpenVINO"]["mae"] < 0.02
    assert agreed["rembg p"]["mae"] > 0.1  # the stand-in cuts nothing out, and it shows
    assert "| rembg p |" in capsys.readouterr().out
    assert (tmp_path / "out/peers.png").is_file()


def test_a_picture_that_rembg_leaves_out_is_an_error(network, cache, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.jpg")
    monkeypatch.setenv("LEAVE_OUT", "b")

    with pytest.raises(SetupError, match="exit status 0 and 1 of 2 cut-outs"):
        rembg_folder.run(network, folder, tmp_path / "out", cache, (0,))


def test_the_pictures_have_one_size_and_differ(tmp_path):
    paths, size = pictures.write(tmp_path / "pictures", 10, 0.01)

    found = set()
    for path in paths:
        with Image.open(path) as picture:
            found.add(picture.size)
    assert found == {size} == {(116, 87)}
    assert len({path.read_bytes() for path in paths}) == 10
