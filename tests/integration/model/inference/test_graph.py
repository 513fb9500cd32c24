"""Pre- and post-processing in the graph, and IR files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from integration.model.tiny_network import MEAN, SCALE, SIZE, build, furthest, noise, plain_grey, save
from worker.contract.errors import BundleError
from worker.images.tensor import normalise
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE, prepare
from worker.model.inference.runtime import core, ov

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


def with_facts(model=None, **facts: str):
    """The network with further keys in `model_info`."""
    model = model or build()
    for key, value in facts.items():
        model.set_rt_info(value, ["model_info", key])
    return model


def behind(kind: str):
    """The network with its mask made in another way."""
    ops = ov.opset13
    model = build()
    logits = model.output(0).get_node().input_value(0)
    made = {
        "sigmoid, then a resize": lambda: ops.interpolate(
            ops.sigmoid(ops.max_pool(logits, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)),
            np.array([SIZE, SIZE], np.int64), "linear_onnx", "sizes", axes=np.array([2, 3], np.int64),
        ),
        "sigmoid, then a clamp": lambda: ops.clamp(ops.sigmoid(logits), 0.0, 1.0),
        "sigmoid, then squeezed": lambda: ops.unsqueeze(ops.squeeze(ops.sigmoid(logits), np.int64(1)), np.int64(1)),
        "sigmoid, then converted": lambda: ops.convert(ops.convert(ops.sigmoid(logits), "f16"), "f32"),
        "hard sigmoid": lambda: ops.hard_sigmoid(logits, np.float32(0.2), np.float32(0.5)),
        "clamp alone": lambda: ops.clamp(logits, 0.0, 1.0),
        "quantised sigmoid": lambda: ops.fake_quantize(
            ops.sigmoid(logits), np.float32(0), np.float32(1), np.float32(0), np.float32(1), 256
        ),
    }[kind]()  # fmt: skip
    made = made if hasattr(made, "get_type_name") else made.get_node()
    changed = ov.Model([ops.result(made)], model.get_parameters(), "tiny")
    for key, values in (("mean_values", MEAN), ("scale_values", SCALE)):
        changed.set_rt_info(" ".join(map(str, values)), ["model_info", key])
    return changed


def plain(variant: Variant, picture: np.ndarray) -> np.ndarray:
    """Grey levels of a network that returns probabilities, in NumPy."""
    network = core().compile_model(str(variant.xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.rint(255 * np.clip(network(normalise(picture, MEAN, SCALE))[0][0, 0], 0, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    "kind",
    [
        "sigmoid, then a resize",
        "sigmoid, then a clamp",
        "sigmoid, then squeezed",
        "sigmoid, then converted",
        "hard sigmoid",
        "clamp alone",
        "quantised sigmoid",
    ],
)
def test_a_probability_is_found_whatever_follows_the_sigmoid(kind, tmp_path):
    variant = save(behind(kind), tmp_path)

    with load(variant) as engine:
        assert furthest(engine.infer(PICTURES["noise"]), plain(variant, PICTURES["noise"])) <= 1
        assert "no sigmoid is added" in engine.describe()["notes"][0]


def test_the_key_decides_about_the_sigmoid(tmp_path):
    variant = save(with_facts(output_activation="probability"), tmp_path)

    with load(variant) as engine:
        assert furthest(engine.infer(PICTURES["noise"]), plain(variant, PICTURES["noise"])) <= 1
        assert engine.describe()["notes"] == []


def test_values_outside_0_to_1_are_clamped_and_do_not_wrap(tmp_path):
    variant = save(with_facts(build(gain=50.0), output_activation="probability"), tmp_path)

    with load(variant) as engine:
        grey = engine.infer(PICTURES["noise"])

    assert furthest(grey, plain(variant, PICTURES["noise"])) <= 1
    assert {0, 255} <= set(np.unique(grey))


def test_a_picture_is_scaled_to_its_largest_value_first(tmp_path):
    (tmp_path / "plain").mkdir()
    plain_one = save(build(), tmp_path / "plain")
    dark = (PICTURES["noise"] // 4).astype(np.uint8)
    dark[0, 0, 0, 0] = 51  # 255 / 5: every value becomes five times as large, exactly
    dark = np.minimum(dark, 51)

    with load(save(with_facts(input_scaling="picture_maximum"), tmp_path)) as engine:
        assert furthest(engine.infer(dark), plain_grey(plain_one, dark * 5)) <= 1
        assert furthest(engine.infer(PICTURES["black"]), plain_grey(plain_one, PICTURES["black"])) <= 1
        assert furthest(engine.infer(PICTURES["white"]), plain_grey(plain_one, PICTURES["white"])) <= 1


def test_a_mask_is_stretched_to_0_to_1(tmp_path):
    (tmp_path / "plain").mkdir()
    plain_one = save(build(gain=0.2), tmp_path / "plain")

    with load(save(with_facts(build(gain=0.2), output_stretch="min_max"), tmp_path)) as engine:
        grey = engine.infer(PICTURES["noise"])

    network = core().compile_model(str(plain_one.xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    mask = 1 / (1 + np.exp(-network(normalise(PICTURES["noise"], MEAN, SCALE))[0][0, 0].astype(np.float64)))
    assert furthest(grey, np.rint(255 * (mask - mask.min()) / np.ptp(mask)).astype(np.uint8)) <= 1
    assert (grey.min(), grey.max()) == (0, 255)


def test_a_mask_without_contrast_is_all_background(tmp_path):
    with load(save(with_facts(build(gain=0.0), output_stretch="min_max"), tmp_path)) as engine:
        assert engine.infer(PICTURES["noise"]).max() == 0


def test_a_network_that_takes_blue_first_gets_it(tmp_path):
    (tmp_path / "plain").mkdir()
    plain_one = save(build(), tmp_path / "plain")

    with load(save(with_facts(reverse_input_channels="YES"), tmp_path)) as engine:
        grey = engine.infer(PICTURES["noise"])
        assert "blue first" in engine.describe()["notes"][0]

    assert furthest(grey, plain_grey(plain_one, np.ascontiguousarray(PICTURES["noise"][..., ::-1]))) <= 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mean_values", "1 nan 3", "mean_values in model_info is '1 nan 3', expected three numbers"),
        ("scale_values", "1 inf 3", "scale_values in model_info is '1 inf 3', expected three numbers"),
        ("output_activation", "softmax", "output_activation in model_info is 'softmax', expected one of logits, prob"),
        ("input_scaling", "odd", "input_scaling in model_info is 'odd', expected one of fixed, picture_maximum"),
        ("output_stretch", "odd", "output_stretch in model_info is 'odd', expected one of none, min_max"),
        ("reverse_input_channels", "perhaps", "reverse_input_channels in model_info is 'perhaps', expected YES or NO"),
    ],
)
def test_facts_that_cannot_be_used_are_refused(key, value, message, tmp_path):
    with pytest.raises(BundleError, match=message):
        load(save(with_facts(**{key: value}), tmp_path))


def test_an_output_that_is_neither_logits_nor_a_probability_is_refused(tmp_path):
    ops = ov.opset13
    model = build()
    grey = ops.multiply(ops.sigmoid(model.output(0).get_node().input_value(0)), np.float32(255))
    with pytest.raises(
        BundleError, match=r"its output lies in 0\.\.255 \(Sigmoid .*import it again with `worker model"
    ):
        load(save(ov.Model([ops.result(grey)], model.get_parameters(), "tiny"), tmp_path))


def test_a_graph_with_a_tensor_that_fits_nowhere_is_refused_before_it_is_compiled(tmp_path):
    ops = ov.opset13
    image = ops.parameter(ov.PartialShape([1, 3, SIZE, SIZE]), ov.Type.f32, name="image")
    grey = ops.reduce_mean(image, ops.constant([1], ov.Type.i64), keep_dims=True)
    wide = ops.broadcast(grey, ops.constant([1, 1 << 22, SIZE, SIZE], ov.Type.i64))
    small = ops.reduce_max(wide, ops.constant([1], ov.Type.i64), keep_dims=True)
    variant = save(ov.Model([ops.result(small)], [image], "wide"), tmp_path)

    with pytest.raises(BundleError, match=r"Broadcast .* returns .*more than 8,589,934,592; the file is damaged"):
        prepare(variant)  # does not compile


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda xml, weights: xml.write_text(xml.read_text().replace('type="ReLU"', 'type="Unheard"')), "Unheard"),
        (lambda xml, weights: weights.write_bytes(b""), "weights"),
        (lambda xml, weights: weights.write_bytes(weights.read_bytes()[:99]), "weights"),
        (lambda xml, weights: xml.write_text(xml.read_text()[:2000]), "cannot be read as an OpenVINO IR"),
        (lambda xml, weights: xml.write_text(""), "cannot be read as an OpenVINO IR"),
        (
            lambda xml, weights: xml.write_bytes(xml.read_bytes().replace(b'type="ReLU"', b'type="\xd8\xff"')),
            "cannot be read as an OpenVINO IR",
        ),
    ],
    ids=[
        "unknown operation",
        "no weights",
        "weights cut off",
        "graph cut off",
        "no graph",
        "an operation whose name is no text",
    ],
)
def test_damaged_files_are_refused_with_the_reason(tmp_path, change, match):
    variant = save(build(), tmp_path)
    change(variant.xml, variant.bin)

    with pytest.raises(BundleError, match=match):
        load(variant)
