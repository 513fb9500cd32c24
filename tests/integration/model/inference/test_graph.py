"""Pre- and post-processing in the graph, and IR files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from integration.model.tiny_network import MEAN, SCALE, SIZE, build, furthest, noise, plain_grey, save
from worker.contract.errors import BundleError
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import ov

PICTURES = {
    "noise": noise(1),
    "black": np.zeros((1, SIZE, SIZE, 3), np.uint8),
    "white": np.full((1, SIZE, SIZE, 3), 255, np.uint8),
    "gradient": np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[:, None] * 4, (1, SIZE, SIZE, 3)),
}


def load(variant: Variant) -> Engine:
    return Engine.load(variant, streams=1, threads=1, inference_precision="f32")


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("gain", [1.0, 50.0], ids=["soft", "hard"])
def test_the_compiled_steps_agree_with_the_plain_ones(tmp_path, gain, half):
    variant = save(build(gain=gain), tmp_path, half=half)

    with load(variant) as engine:
        for name, picture in PICTURES.items():
            grey, expected = engine.infer(picture), plain_grey(variant, picture)
            assert furthest(grey, expected) <= 1, name
            assert (grey != expected).mean() < 0.01, name  # rounded, not truncated


def test_both_ends_of_the_scale_are_reached_and_none_wraps(tmp_path):
    variant = save(build(gain=50.0), tmp_path)

    with load(variant) as engine:
        grey = engine.infer(PICTURES["noise"])

    assert (grey.min(), grey.max()) == (0, 255)
    assert (grey.dtype, grey.shape) == (np.uint8, (SIZE, SIZE))


def test_mean_and_scale_come_from_the_ir(tmp_path):
    with load(save(build(), tmp_path)) as engine:
        facts = engine.describe()

    assert (facts["mean"], facts["scale"], facts["notes"]) == (list(MEAN), list(SCALE), [])


def test_an_ir_without_mean_and_scale_gets_those_of_imagenet_and_a_note(tmp_path, caplog):
    variant = save(build(info=False), tmp_path)

    with load(variant) as engine:
        grey = engine.infer(PICTURES["noise"])
        notes = engine.describe()["notes"]

    assert furthest(grey, plain_grey(variant, PICTURES["noise"], IMAGENET_MEAN, IMAGENET_SCALE)) <= 1
    assert len(notes) == 1
    assert "those of ImageNet are assumed" in notes[0]
    assert notes[0] in caplog.text


def test_a_dynamic_ir_is_made_static_with_a_note(tmp_path):
    variant = save(build(size=None), tmp_path)

    with load(variant) as engine:
        assert engine.infer(PICTURES["noise"]).shape == (SIZE, SIZE)
        assert "dynamic" in engine.describe()["notes"][0]


def test_a_sigmoid_is_not_applied_twice(tmp_path):
    plain = save(build(), tmp_path)
    (tmp_path / "other").mkdir()
    ended = save(build(sigmoid=True), tmp_path / "other")

    with load(ended) as engine:
        assert furthest(engine.infer(PICTURES["noise"]), plain_grey(plain, PICTURES["noise"])) <= 1
        assert "sigmoid" in engine.describe()["notes"][0]


def with_info(mean: str | None, scale: str | None):
    model = build(info=False)
    for key, value in (("mean_values", mean), ("scale_values", scale)):
        if value is not None:
            model.set_rt_info(value, ["model_info", key])
    return model


@pytest.mark.parametrize(
    ("mean", "scale", "message"),
    [
        ("1 2 3", None, "needs both mean_values and scale_values"),
        (None, "1 2 3", "needs both mean_values and scale_values"),
        ("1 2 3", "1 0 3", "no scale may be 0"),
        ("1 2", "1 2 3", "mean_values in model_info is '1 2', expected three numbers"),
        ("1 2 3", "a b c", "scale_values in model_info is 'a b c', expected three numbers"),
    ],
)
def test_unusable_facts_are_refused(tmp_path, mean, scale, message):
    with pytest.raises(BundleError, match=message):
        load(save(with_info(mean, scale), tmp_path))


def test_a_size_that_contradicts_the_file_name_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"its input is \[1,3,64,64\], but its file name says \[1,3,96,96\]"):
        load(save(build(size=64), tmp_path, size=96))


def test_a_network_of_another_kind_is_refused(tmp_path):
    ops = ov.opset13
    image = ops.parameter([1, 3, SIZE, SIZE], ov.Type.f32)
    two_outputs = ov.Model([ops.result(ops.relu(image)), ops.result(ops.abs(image))], [image])
    whole_picture = ov.Model([ops.result(ops.relu(image))], [image])

    with pytest.raises(BundleError, match="has 1 inputs and 2 outputs"):
        load(save(two_outputs, tmp_path))
    with pytest.raises(BundleError, match=r"output has shape \[1,3,64,64\], expected \[1, 1, 64, 64\]"):
        load(save(whole_picture, tmp_path))


def test_a_file_that_is_not_an_ir_is_refused(tmp_path):
    variant = save(build(), tmp_path)
    variant.xml.write_text("<html>not found</html>")

    with pytest.raises(BundleError, match="cannot be read as an OpenVINO IR"):
        load(variant)


def test_weights_cut_short_are_refused(tmp_path):
    variant = save(build(), tmp_path)
    variant.bin.write_bytes(variant.bin.read_bytes()[:100])

    with pytest.raises(BundleError, match="cannot be read as an OpenVINO IR"):
        load(variant)
