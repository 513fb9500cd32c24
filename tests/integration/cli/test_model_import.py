"""`worker model import` on the command line."""

from __future__ import annotations

import json

import click
import pytest

from support import onnx_networks as toys
from worker.cli import cli
from worker.contract.errors import BundleError
from worker.convert.importing import Family, ImportRequest


def worker(*args: object) -> int:
    return cli.main(["model", *map(str, args)], standalone_mode=False)


@pytest.fixture
def toy(tmp_path):
    return toys.save(toys.of_form("sigmoid"), tmp_path / "toy.onnx")


def test_it_says_what_was_decided_and_measures_the_memory(toy, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    options = ("--output", bundle, "--mean", ",".join(map(str, toys.MEAN)), "--std", ",".join(map(str, toys.STD)))

    assert worker("import", toy, *options) == 0

    shown = capsys.readouterr()
    for part in (
        "normalisation: mean 123.675 116.28 103.53, deviation 58.395 57.12 57.375 (as requested)",
        "activation: probability (Sigmoid (out) limits the output to 0..1; values",
        "grey levels of ONNX Runtime",
        "peak memory of fp32 in f32:",
        f"{bundle}: toy 64 fp32",
    ):
        assert part in shown.out
    assert "whether it permits commercial use is unclear" in shown.err
    (peaks,) = json.loads((bundle / "manifest.json").read_text())["memory"].values()
    assert 50 < peaks["f32"]["process_mib"] < 1000 and peaks["f32"]["stream_mib"] > 0

    assert worker("list", bundle) == 0
    assert "* toy 64 fp32" in capsys.readouterr().out
    assert worker("show", bundle) == 0
    assert "output_activation: probability" in capsys.readouterr().out
    assert worker("verify", bundle) == 0


def test_the_options_reach_the_request(toy, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("worker.convert.importing.import_network", lambda request, _: seen.append(request) or _stop())
    options = ("--family", "isnet", "--size", "512x768", "--mean", "128", "--std", "256", "--input-scaling", "fixed")
    more = ("--output-name", "o", "--activation", "none", "--name", "n", "--precision", "fp32,fp16", "--license", "MIT")

    with pytest.raises(BundleError):
        worker("import", toy, "--output", tmp_path / "b", *options, *more)

    (request,) = seen
    assert isinstance(request, ImportRequest)
    assert request.family is Family.ISNET
    assert str(request.size) == "512x768"
    assert request.normalisation() == ((128.0,) * 3, (256.0,) * 3)
    assert (request.output_name, request.activation, request.name) == ("o", "none", "n")
    assert (request.precisions, request.licence.id, request.input_scaling) == (("fp32", "fp16"), "MIT", "fixed")


def _stop():
    raise BundleError("stop")


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "big"), ("--mean", "1,2"), ("--std", "x"), ("--precision", "int4")]
)
def test_values_that_mean_nothing_are_refused(option, value, toy, tmp_path):
    with pytest.raises(click.BadParameter):
        worker("import", toy, "--output", tmp_path / "b", option, value)
