"""Find input channels of convolutions that hardly vary but are large, and take them off exactly.

    conv(x, w, zero padding) + bias  =  conv(x - m, w, zero padding)  +  conv(m everywhere, w, zero padding) + bias
                                        centred                          a constant map

m is the mean of each constant channel, 0 for the other channels. In U²-Net-p one channel is 226 everywhere, and its
bias takes 1270 away again: the rounding error of the weight of this channel alone exceeds the signal of the layer. With
the mean taken off, that error is multiplied by the deviation (0.2) instead of the mean.

The constant map differs from its interior only near the borders, where the kernel reaches into the padding. After the
quantisation `store_compactly` keeps one value per channel and kind of row and column (3 x 3 for a 3 x 3 kernel), spread
by two Gather operations, which OpenVINO computes once when it compiles the network. Not before: NNCF 3.4.0 takes them
for an embedding, and without a model type fails with a KeyError. A padding with -m in front would also be exact, but
would stretch the INT8 range of the input to m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.inference.runtime import core, ov

CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})

LEAST_MEAN = 8.0
"""A channel is constant if its mean exceeds this many deviations."""

LEAST_REACH = 20.0
"""A constant channel does harm if its mean times its largest weight exceeds this."""

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and deviation of each input channel of a convolution, over all pixels of all pictures."""

    mean: Doubles
    """`[C]`."""
    deviation: Doubles
    """`[C]`."""


@dataclass(frozen=True)
class CentredLayer:
    """A convolution whose constant channels were taken off."""

    name: str
    channels: tuple[int, ...]
    means: tuple[float, ...]
    """What was taken off each of these channels."""


def centre(model: Any, pictures: Iterable[Floats], on_picture: Callable[[int], None]) -> list[CentredLayer]:
    """Take the constant channels off all convolutions of a network.

    Args:
        model: float32 network of static shape, changed in place. Its output stays the same up to float rounding.
        pictures: f32 `[1, 3, H, W]` each, prepared for the network.
        on_picture: called with the number of pictures read.

    Returns:
        The changed convolutions; empty if there is nothing to take off.
    """
    statistics = channel_statistics(model, pictures, on_picture)
    centred = []
    for name, convolution in _convolutions(model).items():
        weights = _weights(convolution)
        chosen = constant_channels(statistics[name], weights)
        if chosen.any():
            mean = np.where(chosen, statistics[name].mean, 0).astype(np.float32).astype(np.float64)
            _take_off(convolution, weights, mean)
            channels = np.flatnonzero(chosen)
            centred.append(
                CentredLayer(name, tuple(map(int, channels)), tuple(round(float(m), 4) for m in mean[channels]))
            )
    if centred:
        model.validate_nodes_and_infer_types()
    return centred


def store_compactly(model: Any) -> None:
    """Replace the constant maps of a network by their distinct rows and columns and where these belong; exact."""
    ops = ov.opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or not node.get_friendly_name().endswith(_MAP):
            continue
        levels = np.asarray(node.get_data())
        rows, row_of = np.unique(levels, axis=2, return_inverse=True)
        kinds, column_of = np.unique(rows, axis=3, return_inverse=True)
        if kinds.size < levels.size:
            spread = ops.gather(
                ops.constant(kinds), ops.constant(row_of.reshape(-1).astype(np.int32)), ops.constant(np.int32(2))
            )
            spread = ops.gather(spread, ops.constant(column_of.reshape(-1).astype(np.int32)), ops.constant(np.int32(3)))
            node.output(0).replace(spread.output(0))


def channel_statistics(
    model: Any, pictures: Iterable[Floats], on_picture: Callable[[int], None] = lambda done: None
) -> Mapping[str, ChannelStatistics]:
    """Return the statistics of the input of each convolution with constant weights, by friendly name."""
    measured = model.clone()
    ops = ov.opset13
    axes = ops.constant(np.array([0, 2, 3], np.int64))
    names, results = [], []
    for name, convolution in _convolutions(measured).items():
        values = convolution.input_value(0)
        mean = ops.reduce_mean(values, axes, keep_dims=True)
        # Around the mean of the picture: the mean of squares minus the square of the mean would cancel in float32.
        distance = ops.subtract(values, mean)
        names.append(name)
        results += [ops.result(mean), ops.result(ops.reduce_mean(ops.multiply(distance, distance), axes, True))]
    if not names:
        return {}
    compiled = core().compile_model(ov.Model(results, measured.get_parameters()), "CPU", _EXACT)
    means: list[list[Doubles]] = [[] for _ in names]
    variances: list[list[Doubles]] = [[] for _ in names]
    for done, picture in enumerate(pictures, 1):
        values = list(compiled(picture).values())
        for index in range(len(names)):
            means[index].append(values[2 * index].reshape(-1).astype(np.float64))
            variances[index].append(values[2 * index + 1].reshape(-1).astype(np.float64))
        on_picture(done)
    return {
        name: ChannelStatistics(
            np.mean(mean, axis=0), np.sqrt(np.mean(variance, axis=0) + np.var(np.stack(mean), axis=0))
        )
        for name, mean, variance in zip(names, means, variances, strict=True)
    }


def constant_channels(statistics: ChannelStatistics, weights: Floats) -> npt.NDArray[np.bool_]:
    """Tell which channels are constant and do harm.

    Args:
        statistics: of the input.
        weights: `[out, in, h, w]`, or `[groups, out, in, h, w]`.

    Returns:
        `[C]`.
    """
    # The largest weight of each input channel; channels of a grouped convolution are ordered by group.
    largest = np.abs(weights).max(axis=(-4, -2, -1)).reshape(-1)
    mean = np.abs(statistics.mean)
    return np.asarray((mean > LEAST_MEAN * statistics.deviation) & (mean * largest > LEAST_REACH))


def reachable(length: int, outputs: int, *, kernel: int, stride: int, dilation: int, before: int) -> npt.NDArray[Any]:
    """Tell which taps of a kernel reach the picture rather than the padding, along one axis.

    Args:
        length: of the input.
        outputs: length of the output.
        kernel: number of taps.
        stride: between outputs.
        dilation: between taps.
        before: padding before the input.

    Returns:
        bool `[outputs, kernel]`.
    """
    at = np.arange(outputs)[:, None] * stride - before + np.arange(kernel)[None] * dilation
    return np.asarray((at >= 0) & (at < length))


_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}


def _convolutions(model: Any) -> dict[str, Any]:
    """The convolutions over planes whose weights are a constant, by friendly name."""
    return {
        node.get_friendly_name(): node
        for node in model.get_ordered_ops()
        if node.get_type_name() in CONVOLUTIONS
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and len(node.get_input_shape(0)) == _RANK
    }


_RANK = 4
_MAP = "/constant_map"
"""End of the friendly name of a constant map."""


def _weights(convolution: Any) -> Floats:
    return np.asarray(convolution.input_value(1).get_node().get_data(), np.float32)


def _take_off(convolution: Any, weights: Floats, mean: Doubles) -> None:
    """Subtract the mean in front of a convolution, and add its constant map behind."""
    ops, name = ov.opset13, convolution.get_friendly_name()
    shift = ops.constant(mean.astype(np.float32).reshape(1, -1, 1, 1))
    centred = ops.subtract(convolution.input_value(0), shift, name=f"{name}/centred")
    convolution.input(0).replace_source_output(centred.output(0))
    add, bias = _bias_of(convolution)
    constant = _constant_map(convolution, weights, mean, bias)
    if add is None:
        consumers = list(convolution.output(0).get_target_inputs())
        moved = ops.add(convolution, constant, name=f"{name}/with_mean")
        for port in consumers:
            port.replace_source_output(moved.output(0))
    else:
        port = next(p for p in add.inputs() if p.get_source_output().get_node() != convolution)
        port.replace_source_output(constant.output(0))


def _bias_of(convolution: Any) -> tuple[Any | None, Doubles]:
    """The addition of a constant per channel behind a convolution, and that constant; None and zeros without one."""
    consumers = list(convolution.output(0).get_target_inputs())
    channels = list(convolution.get_output_shape(0))[1]
    if len(consumers) == 1 and consumers[0].get_node().get_type_name() == "Add":
        add = consumers[0].get_node()
        others = [value.get_node() for value in add.input_values() if value.get_node() != convolution]
        if len(others) == 1 and others[0].get_type_name() == "Constant":
            data = np.asarray(others[0].get_data(), np.float64)
            if data.size in (1, channels) and data.size == np.prod(data.shape[-3:-2], initial=1):
                return add, np.broadcast_to(data.reshape(-1), (channels,)).copy()
    return None, np.zeros(channels)


def _constant_map(convolution: Any, weights: Floats, mean: Doubles, bias: Doubles) -> Any:
    """Return a constant with what the mean adds to each output of a convolution, and the bias: `[1, O, H, W]`."""
    height, width = list(convolution.get_input_shape(0))[2:]
    out_height, out_width = list(convolution.get_output_shape(0))[2:]
    facts = convolution.get_attributes()
    before = _padding_before(convolution, facts)
    rows, row_of = _classes(
        reachable(
            height,
            out_height,
            kernel=weights.shape[-2],
            stride=facts["strides"][0],
            dilation=facts["dilations"][0],
            before=before[0],
        )
    )
    columns, column_of = _classes(
        reachable(
            width,
            out_width,
            kernel=weights.shape[-1],
            stride=facts["strides"][1],
            dilation=facts["dilations"][1],
            before=before[1],
        )
    )
    kernel = _kernel_of_the_mean(weights, mean)
    levels = np.einsum("oij,ri,cj->orc", kernel, rows.astype(np.float64), columns.astype(np.float64))
    levels += bias[:, None, None]
    levels = levels[None].astype(np.float32)
    if len(rows) > 1 or len(columns) > 1:  # else it is a plain bias
        levels = levels[:, :, row_of][:, :, :, column_of]
    node = ov.opset13.constant(np.ascontiguousarray(levels))
    node.set_friendly_name(convolution.get_friendly_name() + _MAP)
    return node


def _kernel_of_the_mean(weights: Floats, mean: Doubles) -> Doubles:
    """The kernel of one channel that gives on ones what the weights give on the mean: `[out, h, w]`."""
    exact = weights.astype(np.float64)
    if exact.ndim == _RANK:
        return np.asarray(np.einsum("oihw,i->ohw", exact, mean))
    grouped = np.einsum("goihw,gi->gohw", exact, mean.reshape(exact.shape[0], -1))
    return np.asarray(grouped.reshape(-1, *grouped.shape[2:]))


def _padding_before(convolution: Any, facts: Mapping[str, Any]) -> tuple[int, int]:
    """Padding above and to the left, also where it follows from the sizes."""
    kind = str(facts.get("auto_pad", "explicit")).lower()
    if kind == "explicit":
        return facts["pads_begin"][0], facts["pads_begin"][1]
    if kind == "valid":
        return 0, 0
    given, made = list(convolution.get_input_shape(0))[2:], list(convolution.get_output_shape(0))[2:]
    kernel = list(convolution.get_input_shape(1))[-2:]
    sides = []
    for axis in range(2):
        reach = (made[axis] - 1) * facts["strides"][axis] + (kernel[axis] - 1) * facts["dilations"][axis] + 1
        padding = max(reach - given[axis], 0)
        sides.append(padding // 2 if kind == "same_upper" else padding - padding // 2)
    return sides[0], sides[1]


def _classes(reached: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distinct rows of a table, and for each of its rows which one it is."""
    kinds, which = np.unique(reached, axis=0, return_inverse=True)
    return kinds, which.reshape(-1)
