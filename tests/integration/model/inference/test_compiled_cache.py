"""The cache of compiled models: reused, rebuilt when damaged or not valid here, filled by one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from integration.model.tiny_network import build, noise, save
from worker.model.format.variant import Variant
from worker.model.inference import engine, runtime
from worker.model.inference.engine import Engine

ROOT = Path(__file__).parents[4]


def run(variant: Variant, cache: Path, precision="f32", threads=1) -> tuple[bool, np.ndarray, list[str]]:
    """Load and infer; return whether the model came from the cache, the grey levels, and the notes."""
    with Engine.load(variant, streams=1, threads=threads, inference_precision=precision, cache_dir=cache) as loaded:
        facts = loaded.describe()
        return facts["loaded_from_cache"], loaded.infer(noise(1)), facts["notes"]


def blobs(cache: Path) -> list[Path]:
    return list((cache / "compiled").glob("*/*.blob"))


def test_the_second_start_loads_from_the_cache_with_equal_output(tmp_path):
    variant = save(build(), tmp_path)

    first, first_grey, _ = run(variant, tmp_path / "cache")
    second, second_grey, _ = run(variant, tmp_path / "cache")

    assert (first, second) == (False, True)
    assert np.array_equal(first_grey, second_grey)
    assert len(blobs(tmp_path / "cache")) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "no note"])
def test_a_damaged_blob_is_not_loaded(tmp_path, caplog, damage):
    variant = save(build(), tmp_path)
    _, grey, _ = run(variant, tmp_path / "cache")
    (blob,) = blobs(tmp_path / "cache")
    content = bytearray(blob.read_bytes())
    blob.with_name("of-an-earlier-release.blob.sha256").write_text("0" * 64)
    blob.unlink()
    if damage == "cut":
        blob.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-1] ^= 1
        blob.write_bytes(content)
    else:
        blob.write_bytes(content)
        blob.with_name(f"{blob.name}.sha256").unlink()

    again, grey_again, _ = run(variant, tmp_path / "cache")

    assert not again
    assert np.array_equal(grey, grey_again)
    assert "compiling again" in caplog.text
    (blob,) = blobs(tmp_path / "cache")
    assert [path.name for path in blob.parent.glob("*.sha256")] == [f"{blob.name}.sha256"]
    assert run(variant, tmp_path / "cache")[0]


def test_another_variant_or_arithmetic_has_a_separate_folder(tmp_path):
    variant = save(build(), tmp_path)
    other = Variant(variant.name, variant.size, variant.precision, variant.xml, variant.bin, "1" * 64)
    cache = tmp_path / "cache"

    assert [run(variant, cache)[0], run(other, cache)[0], run(variant, cache, "bf16")[0]] == [False] * 3
    assert len({blob.parent for blob in blobs(cache)}) == 3


def test_a_new_version_of_our_graph_compiles_beside_the_old_one(tmp_path, caplog, monkeypatch):
    variant = save(build(), tmp_path)
    run(variant, tmp_path / "cache")
    (blob,) = blobs(tmp_path / "cache")
    monkeypatch.setattr(engine, "graph_version", lambda: "of the next release")

    assert not run(variant, tmp_path / "cache")[0]
    assert run(variant, tmp_path / "cache")[0]
    assert len(blobs(tmp_path / "cache")) == 2 and blob.exists()
    assert "compiling again" not in caplog.text


def test_the_version_of_our_graph_follows_its_code(tmp_path, monkeypatch):
    before = engine.graph_version()
    changed = tmp_path / "graph.py"
    changed.write_bytes(Path(engine.graph_module.__file__).read_bytes() + b"# a change\n")
    monkeypatch.setattr(engine.graph_module, "__file__", str(changed))
    engine.graph_version.cache_clear()
    assert engine.graph_version() != before
    engine.graph_version.cache_clear()


def test_the_key_changes_with_version_and_instruction_sets(monkeypatch):
    keys = [runtime.compile_key("digest", "f32"), runtime.compile_key("digest", "bf16")]
    with monkeypatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        keys.append(runtime.compile_key("digest", "f32"))
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "cpu_flags", lambda: "sse2")
        keys.append(runtime.compile_key("digest", "f32"))
    with monkeypatch.context() as patch:
        patch.setattr(runtime.ov, "__version__", "2099.1")
        keys.append(runtime.compile_key("digest", "f32"))

    assert len(set(keys)) == len(keys)
    assert keys[0] == runtime.compile_key("digest", "f32")


def test_a_cache_that_cannot_be_written_costs_time_only_and_is_announced(tmp_path, caplog):
    variant = save(build(), tmp_path)
    (tmp_path / "cache").write_text("a file in the way")

    from_cache, _, notes = run(variant, tmp_path / "cache")

    assert not from_cache
    assert "compiled models are not cached" in notes[0]
    assert notes[0] in caplog.text


START_TOGETHER = """
import json, os, sys
from pathlib import Path
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
xml, cache = map(Path, sys.argv[1:])
variant = Variant("tiny", InputSize.square(64), "fp32", xml, xml.with_suffix(".bin"), "0" * 64)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
with Engine.load(variant, streams=1, threads=1, inference_precision="f32", cache_dir=cache) as engine:
    sys.stdout.write(json.dumps(engine.describe()["loaded_from_cache"]))
"""


def test_of_two_processes_that_start_at_once_one_compiles(tmp_path):
    variant = save(build(), tmp_path)
    command = [sys.executable, "-c", START_TOGETHER, variant.xml, tmp_path / "cache"]
    pair = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in pair]

    assert sorted(answers) == [False, True]
