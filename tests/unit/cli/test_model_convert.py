"""`worker model convert`: its options and its output; the conversion itself is replaced by a stub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from worker.cli import model_convert
from worker.contract.errors import SettingsError
from worker.contract.input_size import InputSize
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.evaluate.agreement import Agreement
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.convert.request import BuiltVariant, ConversionProgress, ConversionRequest, ConversionResult

NEEDED = ("--checkpoint", "model.safetensors", "--output", "bundle")


@pytest.fixture
def asked(monkeypatch) -> list[ConversionRequest]:
    """Collect the requests that the command makes."""
    requests: list[ConversionRequest] = []

    def convert(request: ConversionRequest, _: object, on_progress: object) -> ConversionResult:
        requests.append(request)
        for done in (0, 1, 2):
            on_progress(ConversionProgress(2, 4, "512 int8: quantise", done, 2))
        built = (
            BuiltVariant(InputSize.square(512), "fp32", 178_000_000, 3.0, 4.0, 900, None, ""),
            BuiltVariant(
                InputSize.square(512),
                "int8",
                46_000_000,
                60.0,
                4.0,
                2800,
                Agreement(0.03, 0.9, 0.4, 8),
                "MAE 0.03 above 0.02",
            ),
        )
        return ConversionResult(Path("/srv/bundle"), built, ("512 int8 disagrees with FP32",))

    monkeypatch.setattr(model_convert.variants, "convert", convert)
    return requests


def call(*arguments: str) -> Result:
    return CliRunner().invoke(model_convert.convert_command, arguments)


def test_by_default_the_published_set_is_converted(asked):
    done = call(*NEEDED)

    assert done.exit_code == 0, done.output
    assert asked == [
        ConversionRequest(
            "model.safetensors",
            Path("bundle"),
            (InputSize.square(1024), InputSize.square(512)),
            ("fp32", "fp16", "int8", "int8wo"),
        )
    ]


def test_every_option_is_part_of_the_request(asked):
    call(
        *NEEDED,
        *("--size", "512", "--size", "256", "--precision", "int8, fp16,int8", "--calibration", "s3://b/p"),
        *("--calibration-images", "5", "--without", "offsets", "--without", "same-size", "--float-offsets"),
        *("--smooth-quant", "--seven-bit", "nowhere", "--force", "--tile-order", "columns", "--name", "mine"),
    )

    assert asked == [
        ConversionRequest(
            "model.safetensors",
            Path("bundle"),
            (InputSize.square(512), InputSize.square(256)),
            ("int8", "fp16"),
            calibration_source="s3://b/p",
            calibration_images=5,
            without=frozenset({Rewrite.OFFSETS, Rewrite.SAME_SIZE}),
            quantisation=QuantisationConfig(float_offsets=True, smooth=True, overflow=Overflow.NOWHERE),
            force=True,
            tile_order=TileOrder.COLUMNS,
            name="mine",
        )
    ]


@pytest.mark.usefixtures("asked")
def test_a_table_shows_size_memory_and_agreement():
    done = call(*NEEDED)

    row = next(line for line in done.stdout.splitlines() if line.startswith("512 int8"))
    assert row.split() == ["512", "int8", "46.0", "60.0", "2800", "0.0300", "0.9000", "0.400"]
    assert "/srv/bundle" in done.stdout
    assert "on 8 pictures" in done.stdout


@pytest.mark.usefixtures("asked")
def test_steps_and_warnings_go_to_standard_error_once_each(capfd):
    done = call(*NEEDED, "--json")

    assert [json.loads(line)["precision"] for line in done.stdout.splitlines()] == ["fp32", "int8"]
    err = done.stderr + capfd.readouterr().err
    assert err.count("512 int8: quantise") == 1
    assert "warning: 512 int8 disagrees with FP32" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--precision", "int4"), "int4: choose from fp32,fp16,int8,int8wo"),
        (("--precision", " , "), "nothing: choose from"),
        (("--without", "speed"), "'offsets'"),
        (("--seven-bit", "sometimes"), "'everywhere'"),
        (("--calibration-images", "0"), "x>=1"),
    ],
)
def test_the_error_for_an_invalid_value_lists_the_valid_ones(asked, more, words):
    done = call(*NEEDED, *more)

    assert done.exit_code == 2
    assert words in done.output
    assert not asked


def test_an_invalid_size_is_a_settings_error():
    done = call("--checkpoint", __file__, "--output", "bundle", "--size", "100")

    assert isinstance(done.exception, SettingsError)
    assert "size 100" in str(done.exception)


def test_a_published_checkpoint_is_converted_at_its_own_size(asked):
    call("--checkpoint", "hf://ZhengPeng7/BiRefNet_lite-2K", "--output", "bundle")

    assert asked[0].sizes == (InputSize(1440, 2560),)
    assert asked[0].tile_order is None
