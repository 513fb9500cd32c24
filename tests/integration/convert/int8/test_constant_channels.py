"""Constant channels are found and taken off exactly; without that, the same network falls apart in INT8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import onnx_networks as toys
from support.photographs import photograph
from support.this_cpu import has_vnni
from worker.convert import quantise
from worker.convert.evaluate.agreement import Agreement, compare
from worker.convert.importing import reading
from worker.convert.int8 import constant_channels
from worker.convert.int8.build import CONFIG
from worker.convert.network_input import network_input
from worker.model.inference.facts import NetworkFacts
from worker.model.inference.runtime import core, ov

FACTS = NetworkFacts(tuple(255 * m for m in toys.MEAN), tuple(255 * s for s in toys.STD))
CALIBRATION = ("astronaut.png", "coins.png", "chelsea.png")
JUDGED = ("coffee.png", "camera.png", "rocket.jpg")


def pictures(names: tuple[str, ...]) -> np.ndarray:
    return np.stack([np.array(photograph(name).resize((toys.SIZE, toys.SIZE))) for name in names])


def inputs(names: tuple[str, ...] = CALIBRATION) -> list[np.ndarray]:
    return [network_input(one[None], FACTS) for one in pictures(names)]


def outputs(model: Any, names: tuple[str, ...] = JUDGED) -> np.ndarray:
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([compiled(one)[0][0, 0].copy() for one in inputs(names)])


def published(tmp_path) -> Any:
    return reading.read(toys.save(toys.with_constant_channel(), tmp_path / "toy.onnx")).model


def in_int8(model: Any, exact: Any) -> Agreement:
    small = quantise.post_training(model, pictures(CALIBRATION), CONFIG, facts=FACTS)
    constant_channels.store_compactly(small)
    return compare(outputs(small), outputs(exact))


def centred(model: Any) -> list[Any]:
    return constant_channels.centre(model, inputs(), lambda done: None)


def test_int8_holds_only_with_the_constant_taken_off(tmp_path):
    exact, centred_model = published(tmp_path), published(tmp_path)

    (found,) = centred(centred_model)

    assert (found.channels, found.means) == ((8,), (toys.CONSTANT,))
    plain, good = in_int8(exact.clone(), exact), in_int8(centred_model, exact)
    assert plain.iou < 0.9 and plain.mae > 0.03, plain  # the control: the network is one that falls apart
    # Without VNNI, the sums of 8-bit products saturate: still far from the control, but not good enough to be offered.
    assert (good.iou > 0.98 and good.mae < 0.02) if has_vnni() else (good.iou > 0.93 and good.mae < 0.025), good


def test_the_masks_stay_the_same_also_at_the_borders(tmp_path):
    exact, changed = published(tmp_path), published(tmp_path)
    centred(changed)

    expected = outputs(exact)

    assert np.ptp(expected) > 0.5
    for _ in range(2):
        assert np.abs(outputs(changed) - expected).max() < 1e-3  # float32 at a bias of 10,000
        assert compare(outputs(changed), expected).iou == 1
        constant_channels.store_compactly(changed)


def test_the_constant_map_is_small_on_disk(tmp_path):
    exact, changed = published(tmp_path), published(tmp_path)
    centred(changed)
    constant_channels.store_compactly(changed)

    for name, model in {"exact": exact, "changed": changed}.items():
        ov.save_model(model, str(tmp_path / f"{name}.xml"), compress_to_fp16=False)

    grown = (tmp_path / "changed.bin").stat().st_size - (tmp_path / "exact.bin").stat().st_size
    assert grown < 1024 < 4 * toys.SIZE**2  # the map itself has four bytes for each pixel


CASES: dict[str, dict[str, Any]] = {
    "3 x 3, padded": {},
    "strides": {"strides": [2, 1]},
    "dilated as in U²-Net": {"dilations": [4, 4], "before": [4, 4], "after": [4, 4]},
    "dilation beyond the picture": {"dilations": [8, 8], "before": [8, 8], "after": [8, 8]},
    "unequal padding": {"before": [0, 2], "after": [1, 0]},
    "without padding": {"before": [0, 0], "after": [0, 0]},
    "same upper": {"auto_pad": "same_upper", "strides": [2, 2]},
    "same lower": {"auto_pad": "same_lower", "strides": [2, 2]},
    "groups": {"groups": 2},
    "without bias": {"bias": False},
    "5 x 3": {"kernel": (5, 3)},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_convolution_keeps_its_output(case):
    options = {"groups": 1, "bias": True, "kernel": (3, 3), "auto_pad": "explicit"} | CASES[case]
    model = _one_convolution(**options)
    changed = model.clone()
    rng = np.random.default_rng(1)
    shown = [rng.normal(size=(1, 4, 12, 10)).astype(np.float32) * 0.1 + OFFSET for _ in range(2)]

    (found,) = constant_channels.centre(changed, shown, lambda done: None)
    constant_channels.store_compactly(changed)

    assert found.channels == (1, 2)
    assert found.means == pytest.approx(OFFSET.reshape(-1)[1:3], abs=0.05)
    expected, got = (
        core().compile_model(one, "CPU", constant_channels._EXACT)(shown[0])[0] for one in (model, changed)
    )
    assert expected.std() > 10  # the borders are seen
    assert np.abs(got - expected).max() < 1e-3


OFFSET = np.array([0, 50, -80, 1], np.float32).reshape(1, 4, 1, 1)


def _one_convolution(
    *, groups, bias, kernel, auto_pad, strides=(1, 1), dilations=(1, 1), before=(1, 1), after=(1, 1)
) -> Any:
    ops, rng = ov.opset13, np.random.default_rng(2)
    image = ops.parameter([1, 4, 12, 10], ov.Type.f32)
    shape = (6, 4, *kernel) if groups == 1 else (groups, 3, 4 // groups, *kernel)
    weights = ops.constant(rng.normal(size=shape).astype(np.float32))
    make = ops.convolution if groups == 1 else ops.group_convolution
    value = make(image, weights, list(strides), list(before), list(after), list(dilations), auto_pad)
    value.set_friendly_name("layer")
    if bias:
        value = ops.add(value, ops.constant(rng.normal(size=(1, 6, 1, 1)).astype(np.float32)))
    return ov.Model([ops.result(ops.relu(value))], [image], "one")


def test_channels_that_vary_or_do_no_harm_are_left_alone():
    model = _one_convolution(groups=1, bias=True, kernel=(3, 3), auto_pad="explicit")
    before = len(model.get_ops())
    rng = np.random.default_rng(1)

    varying = [rng.normal(size=(1, 4, 12, 10)).astype(np.float32) * 40 + 50]
    harmless = [rng.normal(size=(1, 4, 12, 10)).astype(np.float32) * 0.1 + 2]

    for shown in (varying, harmless):
        assert constant_channels.centre(model, shown, lambda done: None) == []
    assert len(model.get_ops()) == before


def test_deviation_counts_within_and_between_pictures():
    model = _one_convolution(groups=1, bias=True, kernel=(3, 3), auto_pad="explicit")
    rng = np.random.default_rng(4)
    shown = [rng.normal(size=(1, 4, 12, 10)).astype(np.float32) + 1000 + 5 * step for step in range(3)]

    got = constant_channels.channel_statistics(model, shown)["layer"]

    values = np.concatenate(shown).astype(np.float64)
    assert got.mean == pytest.approx(values.mean((0, 2, 3)), abs=1e-3)
    assert got.deviation == pytest.approx(values.std((0, 2, 3)), rel=1e-3)
