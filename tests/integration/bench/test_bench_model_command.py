"""`worker bench model` from end to end with the smallest network. No time is asserted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from integration.model.tiny_network import MEAN, SCALE, SIZE, build, noise, save
from worker.bench import model
from worker.bench.contenders import contenders, variants
from worker.bench.harness import machine
from worker.bench.harness.process import Contestant, once
from worker.bench.model_report import ModelReport
from worker.cli.bench import bench_command
from worker.contract.errors import SettingsError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import PlanSettings
from worker.cpu import placement, topology
from worker.images.tensor import normalise
from worker.model.format.layout import MANIFEST_NAME


@pytest.fixture(autouse=True)
def _children_find_the_package(monkeypatch):
    """So that child processes import the package even where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def only_openvino(monkeypatch):
    """Pretend that no optional package is installed, whatever this machine has."""
    monkeypatch.setattr(machine, "missing", lambda *modules: list(modules))


@pytest.fixture
def tiny_networks(monkeypatch, tmp_path):
    """Two tiny networks instead of the real ones, which take a minute to build and load."""

    def prepare(_options, size, _core_set, folder):
        for role, gain in (("plain", 1.0), ("ours", 2.0)):
            stem = folder / role / "openvino_fp32" / f"birefnet_lite_{size}_fp32"
            stem.parent.mkdir(parents=True)
            variant = save(build(gain=gain), tmp_path)
            shutil.move(variant.xml, stem.with_suffix(".xml"))
            shutil.move(variant.bin, stem.with_suffix(".bin"))
        np.save(folder / "image.npy", noise(1))
        np.save(folder / "normalised.npy", normalise(noise(1), MEAN, SCALE))
        paths = {name: str(folder / f"{name}.npy") for name in ("image", "normalised")}
        roles = {role: str(folder / role) for role in ("plain", "ours")}
        return paths | roles | {"weights": "tiny", "checkpoint": None}

    monkeypatch.setattr(model, "_prepare", prepare)


def test_the_whole_comparison(only_openvino, tiny_networks, tmp_path):
    done = CliRunner().invoke(
        bench_command, ["model", "--quick", "--size", str(SIZE), "--output", str(tmp_path / "out")]
    )

    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "model.json").read_text("utf-8"))
    (one,) = found["results"]
    rows = {row["label"]: row for row in one["contenders"]}
    reasons = {row["label"]: row["reason"] for row in one["not_run"]}
    assert {"plain conversion f32", "maskmill fp32"} <= set(rows)
    assert any(row["role"] == "check" and "engine_over_benchmark_app" in row for row in rows.values())
    assert reasons == {
        "PyTorch eager": "not installed: torch",
        "PyTorch eager, huge pages": "not installed: torch",
        "ONNX Runtime": "not installed: onnxruntime, torch, onnx",
    }
    assert rows["plain conversion f32"]["facts"]["digest"] != rows["maskmill fp32"]["facts"]["digest"]
    assert all(row["n"] == len(row["samples"]) == 2 for row in rows.values())
    assert found["weights"] == "tiny" and found["machine"]["versions"]["openvino"]
    assert not (tmp_path / "out" / "model.png").exists()


def test_the_networks_are_built_where_the_contenders_look_for_them_and_run(tmp_path):
    request = {
        "job": "prepare",
        "cpus": sorted(os.sched_getaffinity(0)),
        "size": 64,
        "checkpoint": None,
        "folder": str(tmp_path),
        "build_ours": True,
    }

    prepared = once(request, tmp_path / "log")

    (plain,) = variants(Path(prepared["plain"]), InputSize.square(64))
    (ours,) = variants(Path(prepared["ours"]), InputSize.square(64))
    assert plain.label == ours.label == "birefnet_lite 64 fp32"
    assert prepared["weights"].startswith("random")
    assert np.load(prepared["image"]).shape == (1, 64, 64, 3)
    assert np.load(prepared["normalised"]).shape == (1, 3, 64, 64)
    core_set = placement.plan(topology.read(), PlanSettings(processes=1)).core_sets[0]
    for row in contenders(plain, [ours], "f32")[:2]:
        asked = row.request() | {"cpus": core_set.cpus, "streams": 1, "threads": core_set.threads}
        taker = Contestant(asked | {"image": prepared["image"]}, images=1, log=tmp_path / "log")
        assert taker.turn().images == 1 and taker.facts["digest"], row.label


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose manifest names the checkpoint it was converted from."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    digest = hashlib.sha256(b"weights").hexdigest()
    facts = {"schema_version": 1, "name": "birefnet_lite", "files": {}, "source": {"sha256": digest}}
    (folder / MANIFEST_NAME).write_text(json.dumps(facts))
    return folder


def test_a_bundle_is_not_compared_with_other_weights(bundle, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")

    for checkpoint, words in ((None, "--checkpoint"), (other, hashlib.sha256(b"other weights").hexdigest())):
        options = model.ModelOptions(sizes=(InputSize.square(64),), rounds=2, bundle=bundle, checkpoint=checkpoint)
        with pytest.raises(SettingsError, match=words):
            model.run(options, PlanSettings(), lambda _: None)


def test_the_checkpoint_of_a_bundle_is_accepted(bundle, tmp_path):
    same = tmp_path / "same.safetensors"
    same.write_bytes(b"weights")

    # The digest is accepted; reading the file then fails, because it is not a checkpoint.
    with pytest.raises(SetupError, match=r"same\.safetensors"):
        model.run(
            model.ModelOptions(sizes=(InputSize.square(64),), rounds=2, bundle=bundle, checkpoint=same),
            PlanSettings(),
            lambda _: None,
        )


def test_an_output_that_is_a_file_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "out").write_text("")

    done = CliRunner().invoke(bench_command, ["model", "--output", str(tmp_path / "out")])

    assert done.exit_code != 0 and "is a file" in done.output


def test_a_plot_is_drawn_of_a_report(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; the plot needs it")
    sample = {"images": 1, "wall_seconds": 1.0, "cpu_seconds": None}
    row = {"label": "a", "role": "ours", "best_seconds": 1.0, "speedup": 1.0, "samples": [sample, sample]}
    one = {
        "size": 512,
        "streams": 1,
        "threads": 2,
        "rounds": 2,
        "load_average_before": 0,
        "load_average_after": 0,
        "contenders": [row, row | {"label": "b", "role": "plain"}],
    }

    report = ModelReport({"machine": {"cpu": "x", "isa_words": "y"}, "results": [one, one]})
    path = report.draw(tmp_path / "plot.png")

    assert path.read_bytes().startswith(b"\x89PNG")
