"""Compare the rounding noise of each layer of a quantised network with its signal.

Each layer of the float network gets two copies beside it, on the same float input: one with the weights of the
quantised network, one with its activations rounded as that network rounds them. So the noise of a layer is its own, and
one pass over a few pictures measures all layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.convert.int8.layers import QUANTISER, has_constant_weights, is_moving, layers
from worker.model.inference.runtime import core, ov

Floats = npt.NDArray[np.float32]

_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
_TINY = 1e-20


@dataclass(frozen=True)
class LayerNoise:
    """The noise of one layer, as shares of the variance of its output."""

    name: str
    weights: float
    """From rounding the weights."""
    activations: float
    """From rounding what the weights are multiplied with."""

    @property
    def decibels(self) -> float:
        """How far the signal is above the noise; the smaller, the worse."""
        return float(-10 * np.log10(max(self.weights + self.activations, _TINY)))

    @property
    def from_weights(self) -> bool:
        """Whether most of the noise comes from the weights."""
        return self.weights > self.activations


def rounding_noise(exact: Any, quantised: Any, pictures: Iterable[Floats]) -> list[LayerNoise]:
    """Return the noise of each layer that both networks have, the one nearest to its signal first.

    Args:
        exact: float network that `quantised` was made of.
        quantised: the network with quantisers; layers have the same friendly names.
        pictures: f32 `[1, 3, H, W]` each, prepared for the network.
    """
    measured, rounded = exact.clone(), layers(quantised)
    ops = ov.opset13
    names, results = [], []
    for name, layer in layers(measured).items():
        if name not in rounded or not has_constant_weights(layer):
            continue
        weights = _beside(layer, layer.input_value(0), rounded[name].input_value(1))
        inputs = _rounded(rounded[name].input_value(0), layer.input_value(0))
        activations = _beside(layer, inputs, layer.input_value(1))
        names.append(name)
        results += [ops.result(node) for node in _powers(layer, [weights, activations])]
    if not names:
        return []
    compiled = core().compile_model(ov.Model(results, measured.get_parameters()), "CPU", _EXACT)
    sums = np.zeros((len(names), 3))
    for picture in pictures:
        sums += np.array([float(value.reshape(-1)[0]) for value in compiled(picture).values()]).reshape(-1, 3)
    noises = [
        LayerNoise(name, float(of_weights / max(signal, _TINY)), float(of_activations / max(signal, _TINY)))
        for name, (signal, of_weights, of_activations) in zip(names, sums, strict=True)
    ]
    return sorted(noises, key=lambda noise: noise.decibels)


def _powers(layer: Any, copies: list[Any]) -> list[Any]:
    """Variance of the output around the mean of its channel, and mean square distance of each copy."""
    ops = ov.opset13
    rank = len(layer.get_output_shape(0))
    plane = ops.constant(np.array([axis for axis in range(rank) if axis != 1 or rank == _PLANE], np.int64))
    everything = ops.constant(np.arange(rank, dtype=np.int64))

    def mean_square(value: Any) -> Any:
        return ops.reduce_mean(ops.multiply(value, value), everything)

    signal = mean_square(ops.subtract(layer, ops.reduce_mean(layer, plane, keep_dims=True)))
    return [signal, *(mean_square(ops.subtract(copy, layer)) for copy in copies)]


_PLANE = 2


def _beside(layer: Any, values: Any, weights: Any) -> Any:
    """Return the same operation on other inputs."""
    ops, facts, kind = ov.opset13, layer.get_attributes(), layer.get_type_name()
    if kind == "MatMul":
        return ops.matmul(values, weights, facts["transpose_a"], facts["transpose_b"])
    place = [facts[key] for key in ("strides", "pads_begin", "pads_end", "dilations")]
    if kind in ("Convolution", "GroupConvolution"):
        make = ops.convolution if kind == "Convolution" else ops.group_convolution
        return make(values, weights, *place, facts["auto_pad"])
    make = ops.convolution_backprop_data if kind == "ConvolutionBackpropData" else ops.group_convolution_backprop_data
    shape = layer.input_value(2) if layer.get_input_size() > _PLANE else None
    if kind == "ConvolutionBackpropData":
        return make(values, weights, place[0], shape, *place[1:], facts["auto_pad"], facts["output_padding"])
    return make(values, weights, place[0], shape, *place[1:], facts["auto_pad"], facts["output_padding"])


def _rounded(of_quantised: Any, exact: Any) -> Any:
    """Round float values as the quantisers upstream of the same place in the quantised network do."""
    ops = ov.opset13
    node, kind = of_quantised.get_node(), of_quantised.get_node().get_type_name()
    if kind == QUANTISER:
        limits = [node.input_value(port) for port in range(1, 5)]
        return ops.fake_quantize(exact, *limits, node.get_attributes()["levels"]).output(0)
    if kind == "Concat":
        twin = exact.get_node()
        if twin.get_type_name() == kind and twin.get_input_size() == node.get_input_size():
            parts = zip(node.input_values(), twin.input_values(), strict=True)
            return ops.concat([_rounded(*part) for part in parts], node.get_attributes()["axis"]).output(0)
        return exact
    if is_moving(node):
        upstream = node.input_value(0).get_node()
        whole = upstream.get_type_name() == QUANTISER and all(
            np.prod(list(upstream.get_input_shape(port)), initial=1) == 1 for port in range(1, 5)
        )
        return _rounded(node.input_value(0), exact) if whole or is_moving(upstream) else exact
    return exact
