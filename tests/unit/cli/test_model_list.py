"""`worker model list` and `fetch` on bundles of a few bytes."""

from __future__ import annotations

import json

import pytest

from unit.model.bundle_files import BIN, DIGEST, FILES, XML, manifest, write_bundle
from worker.cli import cli, model_list, model_source
from worker.contract.errors import BundleNotFound, DigestMismatch
from worker.cpu.isa import recommend

INT8 = {name.replace("fp32", "int8"): data for name, data in FILES.items()}
BOTH = {**FILES, **INT8}
VNNI = frozenset({"avx2", "avx512f", "avx512_vnni"})


@pytest.fixture(autouse=True)
def _a_cpu_with_vnni(monkeypatch):
    advice = recommend(VNNI, 64 << 30)
    monkeypatch.setattr(model_list, "recommendation", lambda: advice)
    monkeypatch.setattr("worker.cli.model_fetch.recommendation", lambda: advice)


def worker(*args: object) -> int:
    return cli.main(["model", *map(str, args)], standalone_mode=False)


def as_json(capsys, *args: object) -> tuple[int, dict]:
    code = worker(*args, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_variants_with_sizes_digests_and_the_choice(tmp_path, capsys):
    root = write_bundle(tmp_path / "b", {**BOTH, "manifest.json": manifest(BOTH)})

    code, got = as_json(capsys, "list", root)

    assert code == 0
    assert [(v["size"], v["precision"], v["bytes"], v["digests"], v["chosen"]) for v in got["variants"]] == [
        (64, "fp32", 15, "verified", False),
        (64, "int8", 15, "verified", True),
    ]
    assert got["choice"] == "net 64 int8"
    assert "int8 is what this CPU runs best" in got["reason"]
    assert (got["isa"], got["inference_precision"]) == ("avx512_vnni", "f32")
    assert got["precision_reasons"][0].startswith("VNNI")


def test_a_variant_that_failed_its_comparison_is_not_recommended(tmp_path, capsys):
    facts = {"precision": "int8", "agreement": {"mae": 0.01, "iou": 0.8}}
    described = manifest(BOTH, variants={XML.replace("fp32", "int8"): facts})
    root = write_bundle(tmp_path / "b", {**BOTH, "manifest.json": described})

    code, got = as_json(capsys, "list", root)

    assert (code, got["choice"]) == (0, "net 64 fp32")
    assert [row["agreement_failure"] for row in got["variants"]] == ["", "IoU 0.8000 below 0.95"]
    assert worker("list", root) == 0
    assert "DIFFERS from FP32: IoU 0.8000 below 0.95" in capsys.readouterr().out


def test_output_as_text(tmp_path, capsys):
    root = write_bundle(tmp_path / "b", {**BOTH, "manifest.json": manifest(BOTH), "openvino_fp32/odd.bin": b""})

    assert worker("list", root) == 0

    shown = capsys.readouterr()
    (marked,) = [line for line in shown.out.splitlines() if line.startswith("*  ")]
    assert marked.split()[:4] == ["*", "net", "64", "int8"]
    assert "VNNI: INT8 products are native" in shown.out
    assert "ignored, not named like a variant: openvino_fp32/odd.bin" in shown.err


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({**BOTH, BIN: b"damaged", "manifest.json": manifest(BOTH)}, "WRONG: "),
        ({XML: FILES[XML], **INT8, "manifest.json": manifest(BOTH)}, f"WRONG: {BIN} is missing"),
        ({**BOTH, "manifest.json": manifest(INT8)}, f"WRONG: {XML} is not in the manifest"),
    ],
    ids=["damaged", "missing", "not described"],
)
def test_a_variant_that_does_not_match_the_manifest_fails(tmp_path, capsys, files, state):
    root = write_bundle(tmp_path / "b", files)

    code, got = as_json(capsys, "list", root)

    assert code == 1
    assert [v["digests"].startswith(state) for v in got["variants"]] == [True, False]


def test_a_bundle_without_a_manifest(tmp_path, capsys):
    code, got = as_json(capsys, "list", write_bundle(tmp_path / "b", FILES))

    assert code == 0
    assert got["variants"][0]["digests"] == "none: no manifest"
    assert "FALLBACK to fp32: this CPU prefers int8" in got["reason"]


def test_several_models_are_listed_although_none_would_run(tmp_path, capsys):
    other = {name.replace("net_", "other_"): data for name, data in FILES.items()}

    code, got = as_json(capsys, "list", write_bundle(tmp_path / "b", {**FILES, **other}))

    assert code == 0
    assert (len(got["variants"]), got["choice"]) == (2, None)
    assert "holds several models: net, other" in got["reason"]


def test_the_source_of_the_settings_is_the_default(capsys):
    code, got = as_json(capsys, "list")

    assert code == 0
    assert (got["source"], got["choice"]) == ("builtin:starter", "starter 320 int8")


def test_fetch_prints_the_paths_of_the_files(tmp_path, capsys):
    root = write_bundle(tmp_path / "b", FILES)

    code, got = as_json(capsys, "fetch", root, "--size", 64, "--precision", "fp32")

    assert code == 0
    assert (got["xml"], got["bin"], got["digest"]) == (str(root / XML), str(root / BIN), DIGEST)
    assert "has no manifest.json" in got["warnings"][0]


def test_fetch_output_as_text(tmp_path, capsys):
    root = write_bundle(tmp_path / "b", {**FILES, "manifest.json": manifest(FILES)})

    assert worker("fetch", root) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"digest {DIGEST}", str(root / XML), str(root / BIN)]


def test_fetch_refuses_a_missing_or_damaged_variant(tmp_path):
    root = write_bundle(tmp_path / "b", {**BOTH, BIN: b"damaged", "manifest.json": manifest(BOTH)})

    with pytest.raises(BundleNotFound, match="available: net 64 fp32, net 64 int8"):
        worker("fetch", root, "--size", 96)
    with pytest.raises(DigestMismatch):
        worker("fetch", root, "--precision", "fp32")


def test_there_is_no_progress_bar_without_a_terminal(capsys):
    with model_source.progress_bar() as on_progress:
        assert on_progress is None


def test_a_folder_that_holds_an_onnx_file_is_no_bundle_yet(tmp_path, capsys):
    (tmp_path / "u2netp.onnx").write_bytes(b"x")

    assert worker("list", tmp_path) == 1

    shown = capsys.readouterr()
    assert f"import it with `worker model import {tmp_path}/u2netp.onnx --output BUNDLE`" in shown.out
    assert "ignored, not named like a variant: u2netp.onnx" in shown.err
