"""A worker answers with the weights whose digest it reports, whatever happens to the bundle it was started from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from integration.model.tiny_network import build, noise, save
from worker.contract.errors import BundleError, DigestMismatch
from worker.contract.settings import ModelSettings, Settings
from worker.model.format.manifest import sha256_of, variant_digest
from worker.model.inference.engine import Engine
from worker.model.inference.runtime import ov
from worker.model.loading import find_bundle, recommendation
from worker.model.sources import bundles, private_copy

ROOT = Path(__file__).parents[4]


def bundle_of(folder: Path, gain: float = 1.0) -> Path:
    """Write a bundle of one variant; networks of another gain have other weights in files of the same size."""
    home = folder / "openvino_fp32"
    home.mkdir(parents=True)
    variant = save(build(gain=gain), folder)
    variant.xml.rename(home / "tiny_64x64_fp32.xml")
    variant.bin.rename(home / "tiny_64x64_fp32.bin")
    return folder


def overwritten(bundle: Path, other: Path) -> None:
    """Do what `cp` does: write into the file that is there."""
    (weights,), (new,) = bundle.glob("*/*.bin"), other.glob("*/*.bin")
    inode = weights.stat().st_ino
    shutil.copyfile(new, weights)
    assert weights.stat().st_ino == inode


def located(source: Path, cache: Path):
    settings = ModelSettings(source=str(source), cache_dir=cache)
    return private_copy.private_copy(bundles.locate(settings, None, ("fp32",)), cache)


def grey_levels(variant) -> np.ndarray:
    with Engine.load(variant, streams=1, threads=1, inference_precision="f32") as engine:
        return engine.infer(noise(1))


def test_weights_written_over_a_bundle_change_neither_results_nor_digest(tmp_path):
    bundle, other = bundle_of(tmp_path / "a"), bundle_of(tmp_path / "b", gain=-3.0)
    before, after = grey_levels(located(bundle, tmp_path / "c1").variant), None
    found = located(bundle, tmp_path / "cache")
    assert found.variant.bin.is_relative_to(tmp_path / "cache")

    with Engine.load(found.variant, streams=1, threads=1, inference_precision="f32") as engine:
        overwritten(bundle, other)
        after = engine.infer(noise(1))
        assert engine.describe()["digest"] == found.variant.digest
    again = grey_levels(found.variant)  # a process that starts now with the same, verified variant

    assert np.array_equal(before, after) and np.array_equal(before, again)
    assert variant_digest(sha256_of(found.variant.xml), sha256_of(found.variant.bin)) == found.variant.digest
    replaced = located(bundle, tmp_path / "cache").variant
    assert replaced.digest != found.variant.digest
    assert not np.array_equal(grey_levels(replaced), before)


def test_a_bundle_that_becomes_shorter_ends_no_worker(tmp_path):
    found = located(bundle_of(tmp_path / "a"), tmp_path / "cache")
    (weights,) = (tmp_path / "a").glob("*/*.bin")
    script = f"""
import sys
sys.path[:0] = {[str(ROOT / "tests"), str(ROOT)]!r}
from pathlib import Path
from integration.model.tiny_network import noise
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
xml = Path({str(found.variant.xml)!r})
variant = Variant("tiny", InputSize.square(64), "fp32", xml, xml.with_suffix(".bin"), "0" * 64)
with Engine.load(variant, streams=1, threads=1, inference_precision="f32") as engine:
    Path({str(weights)!r}).write_bytes(b"")
    print(engine.infer(noise(1)).mean())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_copy_is_made_once_and_again_if_it_is_damaged(tmp_path):
    bundle = bundle_of(tmp_path / "a")
    first = located(bundle, tmp_path / "cache").variant
    inode = first.bin.stat().st_ino
    assert located(bundle, tmp_path / "cache").variant == first
    assert first.bin.stat().st_ino == inode
    first.bin.write_bytes(b"damaged")
    again = located(bundle, tmp_path / "cache").variant
    assert again == first and variant_digest(sha256_of(again.xml), sha256_of(again.bin)) == again.digest


def test_files_that_change_while_they_are_copied_are_refused(tmp_path):
    found = bundles.locate(ModelSettings(source=str(bundle_of(tmp_path / "a"))), None, ("fp32",))
    overwritten(tmp_path / "a", bundle_of(tmp_path / "b", gain=2.0))
    with pytest.raises(DigestMismatch, match="changed while it was copied"):
        private_copy.private_copy(found, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_cache_that_cannot_be_written_is_announced(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    found = located(bundle_of(tmp_path / "a"), tmp_path / "cache")
    assert found.variant.bin.is_relative_to(tmp_path / "a")
    assert "is used in place" in found.warnings[-1] and "MASKMILL_MODEL__CACHE_DIR" in found.warnings[-1]


def test_a_builtin_bundle_stays_where_it_is(tmp_path):
    settings = ModelSettings(source="builtin:contrast", cache_dir=tmp_path)
    found = bundles.locate(settings, None, ("fp32", "fp16"))
    assert private_copy.private_copy(found, tmp_path) is found
    assert not (tmp_path / "bundles").exists()


def test_the_worker_loads_the_copy(tmp_path):
    settings = Settings(model={"source": str(bundle_of(tmp_path / "a")), "cache_dir": tmp_path / "cache"})
    found = find_bundle(settings, None, recommendation())
    assert found.variant.bin.is_relative_to(tmp_path / "cache" / "bundles" / "local")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = build()
    weight = next(node for node in model.get_ops() if node.get_type_name() == "Constant")
    values = weight.get_data().copy()
    values.reshape(-1)[-1] = np.nan
    weight.output(0).replace(ov.opset13.constant(values).output(0))
    with pytest.raises(BundleError, match="holds NaN"):
        grey_levels(save(model, tmp_path))


def test_copies_that_no_process_used_for_long_are_deleted(tmp_path):
    cache, long_ago = tmp_path / "cache", time.time() - private_copy.KEPT_SECONDS - 60
    old, kept = (located(bundle_of(tmp_path / name, gain), cache).variant for name, gain in (("a", 1.0), ("b", 2.0)))
    os.utime(old.bin.parent, (long_ago, long_ago))
    foreign = cache / "bundles/local/notes"
    foreign.mkdir()
    os.utime(foreign, (long_ago, long_ago))

    used = located(tmp_path / "b", cache).variant

    assert used == kept and used.bin.is_file() and foreign.is_dir()
    assert not old.bin.parent.exists()
    again = located(tmp_path / "a", cache).variant
    assert again == old and again.bin.is_file()
    os.utime(again.bin.parent, (long_ago, long_ago))
    located(tmp_path / "a", cache)  # a use keeps it
    assert again.bin.is_file()
