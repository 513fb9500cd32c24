"""`worker bench quality` with real networks on a small exam."""

from __future__ import annotations

import json

import click
import pytest
from PIL import Image

from unit.bench.quality.small_exam import write_exam
from worker.cli import cli
from worker.contract.errors import BundleNotFound, SourceError


def bench(*args: object) -> int:
    return cli.main(["bench", "quality", *map(str, args)], standalone_mode=False)


def test_the_built_in_networks_are_scored_and_drawn(tmp_path, capsys):
    folder = write_exam(tmp_path / "boxes")

    code = bench(
        *(
            "--bundle",
            "builtin:contrast",
            "--bundle",
            "builtin:starter",
            *("--precision", "fp32"),
            *("--precision", "int8"),
        ),
        *("--exam", folder, "--output", tmp_path / "out"),
    )

    out = capsys.readouterr().out
    document = json.loads((tmp_path / "out/quality.json").read_text())
    assert code == 0
    assert document["exam"]["name"] == "boxes"
    contrast, starter = document["networks"]
    assert (contrast["label"], starter["label"]) == ("contrast 320 fp32", "starter 320 int8")
    assert contrast["scores"]["iou"] > 0.8  # a red box on a plain ground: what it is made for
    assert contrast["scores"]["mae"] < 0.1
    assert starter["seconds"] > 0
    assert starter["licence"] == "Apache-2.0"
    assert ["has no model of precision" in note for note in document["notes"]] == [True, True]
    assert "| boxes | contrast 320 fp32 |" in out
    with Image.open(tmp_path / "out/quality.png") as sheet:
        assert sheet.height > 3 * 180


def test_a_true_mask_of_another_size_is_refused(tmp_path):
    folder = write_exam(tmp_path / "boxes")
    Image.new("L", (10, 10), 255).save(folder / "masks/a.png")

    with pytest.raises(SourceError, match="must have the size of its picture"):
        bench("--bundle", "builtin:contrast", "--exam", folder, "--output", tmp_path / "out")


def test_a_bundle_without_the_precision_is_refused(tmp_path):
    folder = write_exam(tmp_path / "boxes")

    with pytest.raises(BundleNotFound, match="int8wo"):
        bench("--bundle", "builtin:contrast", "--precision", "int8wo", "--exam", folder, "--output", tmp_path / "out")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give --bundle, --exam and --output; or --build-exam"),
        (("--bundle", "builtin:contrast", "--exam", "x", "--output", "y", "--rembg", "u2netp"), "is not SESSION=FILE"),
    ],
)
def test_arguments_that_do_not_fit_together(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match=message):
        bench(*args)
