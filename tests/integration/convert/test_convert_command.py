"""`worker model convert` as a user types it: the whole network with stand-in weights at a small size."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from support.birefnet_weights import stand_in_state_dict
from support.commands import BIN, environment, run, wait_for
from worker.contract.settings import ModelSettings
from worker.model.format.manifest import sha256_of
from worker.model.sources import bundles

SIZE = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_file(stand_in_state_dict(), path)
    return path


@pytest.fixture
def old_bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("old")
    return folder


def files(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def arguments(checkpoint: Path, output: Path, *more: str, precision: str = "fp32") -> list[str]:
    return [
        *("model", "convert", "--checkpoint", str(checkpoint), "--output", str(output)),
        *("--size", str(SIZE), "--precision", precision, *more),
    ]


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory) -> Iterator[tuple[Path, list[dict], str]]:
    """The bundle of fp16 and int8wo, the lines printed for each variant, and standard error."""
    folder = tmp_path_factory.mktemp("converted") / "bundle"
    done = run(
        "worker",
        *arguments(checkpoint, folder, "--json", "--calibration-images", "2", precision="fp16,int8wo"),
        settings={},
    )
    assert done.code == 0, done.err
    yield folder, done.lines, done.err


def test_variants_have_their_published_names_and_sizes(converted):
    folder, _, _ = converted

    sizes = files(folder)
    assert set(sizes) == {
        "LICENSE",
        "manifest.json",
        *(f"openvino_{p}/birefnet_lite_{SIZE}x{SIZE}_{p}.{s}" for p in ("fp16", "int8wo") for s in ("xml", "bin")),
    }
    assert 80e6 < sizes[f"openvino_fp16/birefnet_lite_{SIZE}x{SIZE}_fp16.bin"] < 95e6
    assert 43e6 < sizes[f"openvino_int8wo/birefnet_lite_{SIZE}x{SIZE}_int8wo.bin"] < 50e6


def test_agreement_and_memory_are_reported(converted):
    folder, lines, err = converted

    assert [line["precision"] for line in lines] == ["fp16", "int8wo"]
    fp16, int8wo = (line["agreement"] for line in lines)
    assert 0 < fp16["mae"] < 0.002 < int8wo["mae"] < 0.02
    assert fp16["pictures"] == 2
    assert all(300 < line["peak_memory_mib"] < 4000 for line in lines)
    manifest = json.loads((folder / "manifest.json").read_text())
    stored = manifest["variants"][f"openvino_int8wo/birefnet_lite_{SIZE}x{SIZE}_int8wo.xml"]
    assert stored["agreement"] == int8wo
    assert f"{SIZE} fp32" in err  # steps are shown


def test_the_worker_finds_and_runs_a_converted_variant(converted):
    folder, _, _ = converted
    bundle = bundles.locate(ModelSettings(source=str(folder), precision="int8wo"))

    from worker.model.inference.engine import Engine

    assert bundle.license == "MIT"
    assert not bundle.warnings
    with Engine.load(bundle.variant, streams=1, threads=1, inference_precision="f32") as engine:
        grey = engine.infer(np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8))
        facts = engine.describe()
    assert grey.shape == (SIZE, SIZE)
    assert np.ptp(grey.astype(int)) > 20
    assert facts["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert facts["notes"] == []


def test_the_manifest_records_the_checkpoint_without_its_path(converted, checkpoint):
    folder, _, _ = converted

    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["sha256"] == sha256_of(checkpoint)
    assert str(checkpoint.parent) not in (folder / "manifest.json").read_text()


def test_a_truncated_checkpoint_is_named_and_the_old_bundle_stays(checkpoint, old_bundle, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])

    done = run("worker", *arguments(broken, old_bundle), settings={})

    assert done.code == 1
    assert "broken.safetensors is truncated" in done.err
    assert files(tmp_path) == {"bundle/manifest.json": 3, "broken.safetensors": broken.stat().st_size}


def test_a_full_disk_is_reported_and_the_old_bundle_stays(checkpoint, old_bundle, tmp_path):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))

    done = subprocess.run(
        [str(BIN / "worker"), *arguments(checkpoint, old_bundle, "--tile-order", "rows")],
        env=environment({}),
        capture_output=True,
        text=True,
        preexec_fn=limited,
        timeout=100,
        check=False,
    )

    assert done.returncode == 1
    assert "64 fp32: " in done.stderr
    assert files(tmp_path) == {"bundle/manifest.json": 3}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(checkpoint, old_bundle, tmp_path, number, code):
    process = subprocess.Popen(
        [str(BIN / "worker"), *arguments(checkpoint, old_bundle)],
        env=environment({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    family = psutil.Process(process.pid)
    wait_for(lambda: family.children(recursive=True), "the process that builds")
    children = family.children(recursive=True)

    os.kill(process.pid, number)
    process.communicate(timeout=60)

    assert process.returncode == code
    assert not [child for child in children if child.is_running()]
    assert files(tmp_path) == {"bundle/manifest.json": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
