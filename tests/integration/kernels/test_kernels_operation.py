"""The native deformable convolution inside OpenVINO, compared with OpenVINO's own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support import kernels
from worker.model.inference.native import deformable, operations
from worker.model.inference.runtime import ov

pytestmark = pytest.mark.usefixtures("library")

CPUS = len(os.sched_getaffinity(0))

# Largest difference relative to the largest value, for random weights and images.
LIMIT = {"f32": 1e-5, "bf16": 0.01, "i8": 0.03}

SHAPES = {
    "plain": {},
    "7x7": {"kernel": 7, "size": (13, 11)},
    "1x1": {"kernel": 1, "size": (33, 7)},
    "one pixel": {"size": (1, 1)},
    "odd channels": {"channels": 37, "outputs": 19},
    "stride": {"stride": 2, "size": (19, 23)},
    "dilation": {"dilation": 2},
    "batch": {"batch": 3, "size": (9, 9)},
    "signed, no relu": {"positive": False, "relu": False},
    "far offsets": {"spread": 50.0},
    "on pixels": {"spread": 0.0},
}


@pytest.mark.parametrize("arithmetic", LIMIT)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_agrees_with_openvino(shape, arithmetic):
    model, inputs = kernels.node(**shape)
    want = kernels.run(kernels.compiled(model), inputs)

    done = kernels.replaced(model, arithmetic)
    got = kernels.run(kernels.compiled(model, threads=CPUS), inputs)

    assert (done.replaced, done.left, done.notes) == (1, 0, ())
    assert not [node for node in model.get_ops() if node.get_type_name() in ("DeformableConvolution", "Relu", "Add")]
    assert abs(got - want).max() <= LIMIT[arithmetic] * abs(want).max()


@pytest.mark.parametrize("arithmetic", LIMIT)
def test_a_point_that_is_not_finite_lies_outside(arithmetic):
    model, inputs = kernels.node()
    odd = np.random.default_rng(1).random(inputs[1].shape) < 0.2
    outside = [inputs[0], np.where(odd, np.float32(-1e6), inputs[1]), inputs[2]]
    kernels.replaced(model, arithmetic)
    network = kernels.compiled(model)
    want = kernels.run(network, outside)

    for strange in (np.nan, np.inf, -np.inf, np.finfo(np.float32).max):
        got = kernels.run(network, [inputs[0], np.where(odd, np.float32(strange), inputs[1]), inputs[2]])
        assert np.array_equal(got, want)


@pytest.mark.parametrize("arithmetic", LIMIT)
def test_streams_do_not_disturb_one_another(arithmetic):
    model, inputs = kernels.node(kernel=3, size=(24, 24))
    kernels.replaced(model, arithmetic)
    want = kernels.run(kernels.compiled(model), inputs)
    pictures = [[inputs[0] * factor, *inputs[1:]] for factor in (0.5, 1, 2, 4)]  # exact in every arithmetic
    network = kernels.compiled(model, streams=CPUS, threads=CPUS)
    single = kernels.compiled(model)
    wanted = [kernels.run(single, picture) for picture in pictures]

    def infer(picture: list[np.ndarray]) -> np.ndarray:
        request = network.create_infer_request()
        request.start_async(dict(enumerate(picture)))
        request.wait()
        return request.get_output_tensor(0).data.copy()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(infer, pictures * 6))

    assert np.array_equal(wanted[1], want)
    for i, result in enumerate(results):
        assert np.array_equal(result, wanted[i % len(pictures)])


def test_a_batch_norm_as_published_is_folded():
    """A plain conversion has the norm as a separate operation, or as a multiplication and an addition."""
    rng = np.random.default_rng(2)
    model, inputs = kernels.node(relu=False)
    y = model.output(0).get_node().input_value(0)
    statistics = [kernels.ops.constant(rng.random(48).astype(np.float32) + 0.5) for _ in range(4)]
    y = kernels.ops.batch_norm_inference(y, *statistics, 1e-5)
    y = kernels.ops.multiply(y, kernels.ops.constant(rng.random((1, 48, 1, 1)).astype(np.float32)))
    model = ov.Model([kernels.ops.relu(y)], model.get_parameters(), "norm")
    want = kernels.run(kernels.compiled(model), inputs)

    kernels.replaced(model)
    left = {node.get_type_name() for node in model.get_ops()}
    got = kernels.run(kernels.compiled(model), inputs)

    assert left == {"Parameter", "Constant", "FusedDeformableConvolution", "Result"}
    assert abs(got - want).max() <= 1e-5 * abs(want).max()


def test_weights_stored_in_int8_are_read():
    rng = np.random.default_rng(3)
    levels = kernels.ops.constant(rng.integers(-127, 128, (48, 64, 3, 3)).astype(np.int8))
    scale = kernels.ops.constant(rng.random((48, 1, 1, 1)).astype(np.float32) / 1000)
    model, inputs = kernels.node()
    node = next(node for node in model.get_ops() if node.get_type_name() == "DeformableConvolution")
    node.input(2).replace_source_output(kernels.ops.multiply(kernels.ops.convert(levels, "f32"), scale).output(0))
    want = kernels.run(kernels.compiled(model), inputs)

    done = kernels.replaced(model)
    got = kernels.run(kernels.compiled(model), inputs)

    assert done.replaced == 1
    assert abs(got - want).max() <= 1e-5 * abs(want).max()


def quantised(levels: int = 256, low: float = 0.0, high: tuple[float, ...] = (2.0,)) -> tuple[ov.Model, list, list]:
    """Return a model of one convolution whose reader quantises it, its inputs, and its output before the reader."""
    model, inputs = kernels.node()
    y = model.output(0).get_node().input_value(0)
    ranges = [np.full((1, len(high), 1, 1), low, np.float32), np.array(high, np.float32).reshape(1, -1, 1, 1)] * 2
    y = kernels.ops.fake_quantize(y, *(kernels.ops.constant(edge) for edge in ranges), levels)
    alone, _ = kernels.node()
    kernels.replaced(alone, "i8")
    return ov.Model([y], model.get_parameters(), "quantised"), inputs, kernels.run(kernels.compiled(alone), inputs)


def levels_written(model: ov.Model) -> bool:
    """Whether the native operation writes u8."""
    node = next(node for node in model.get_ops() if node.get_type_name() == "FusedDeformableConvolution")
    return node.get_output_element_type(0) == ov.Type.u8


def test_a_quantised_reader_gets_levels():
    """Of a kernel that computes in INT8; without VNNI there is none, and the reader quantises values."""
    model, inputs, values = quantised()
    native = operations.installed()

    kernels.replaced(model, "i8")
    got = kernels.run(kernels.compiled(model), inputs)

    step = 2.0 / 255
    assert levels_written(model) == (native.kernel("i8") is not None)
    assert values.max() > 2.0, "some values are above the range"
    assert np.unique(got).size > 100
    assert abs(got - np.clip(values, 0, 2)).max() <= 0.51 * step
    assert np.allclose(got / step, np.rint(got / step), atol=1e-3)


@pytest.mark.parametrize(
    "reader",
    [{"levels": 255}, {"low": -1.0}, {"high": tuple(np.linspace(1, 2, 48))}],
    ids=["255", "signed", "channels"],
)
def test_another_reader_gets_values(reader):
    model, inputs, values = quantised(**reader)
    levels, low, high = (reader.get(name, usual) for name, usual in (("levels", 256), ("low", 0.0), ("high", (2.0,))))

    kernels.replaced(model, "i8")
    got = kernels.run(kernels.compiled(model), inputs)

    high = np.array(high, np.float32).reshape(1, -1, 1, 1)
    assert not levels_written(model)
    assert (abs(got - np.clip(values, low, high)) <= 0.51 * (high - low) / (levels - 1)).all()


@pytest.mark.parametrize("arithmetic", ["f32", "bf16"])
def test_levels_are_written_in_int8_only(arithmetic):
    model, *_ = quantised()

    kernels.replaced(model, arithmetic)

    assert not levels_written(model)


def test_an_operation_with_a_second_reader_is_not_folded():
    model, inputs = kernels.node(relu=False)
    y = model.output(0).get_node().input_value(0)
    model = ov.Model([kernels.ops.relu(y), kernels.ops.negative(y)], model.get_parameters(), "both")
    want = [values.copy() for values in kernels.compiled(model)(inputs).values()]

    kernels.replaced(model)
    got = list(kernels.compiled(model)(inputs).values())

    for one, other in zip(got, want, strict=True):
        assert abs(one - other).max() <= 1e-5 * abs(other).max()


def test_an_unsupported_operation_is_left_alone_and_noted():
    x, shifts = (kernels.ops.parameter(shape, ov.Type.f32) for shape in ([1, 4, 8, 8], [1, 18, 8, 8]))
    weights = kernels.ops.constant(np.ones((2, 4, 3, 3), np.float32))
    y = kernels.ops.deformable_convolution(x, shifts, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    done = kernels.replaced(ov.Model([y], [x, shifts], "old"))

    assert (done.replaced, done.left) == (0, 1)
    assert done.describe() == "1 on OpenVINO's own kernel"
    assert "1 deformable convolutions" in done.notes[0]


def test_off_means_off():
    model, _ = kernels.node()
    done = deformable.replace(model, mode="off", int8=True, floats="bf16")

    assert (done.replaced, done.left, done.notes, done.digest) == (0, 1, (), "")
