"""Fewer bits for a network: INT8 weights alone, or INT8 weights and activations by post-training quantisation.

    weight_only(model)                    INT8 weights, float arithmetic (or activations quantised on the fly)
    post_training(model, tensors, ...)    INT8 arithmetic, ranges taken from pictures

The second is NNCF's work. It knows no deformable convolution, which keeps float arithmetic in either form; but weights
need not be stored as they are computed with. Here they are stored as

    convolutions, deformable ones too    w = scale * i8                one scale per output channel
    matrix products                      w = scale * (u8 - zero)       one scale and one zero point per output channel

The CPU plugin runs such matrix products on the integers. Weights of convolutions it expands once, when it compiles,
but for 1x1 convolutions, where it expands a few thousand numbers each time.

Both change the model they are given. Only a process made for it should import this: NNCF draws in SciPy and pandas.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError, SetupError
from worker.convert.quantisation_config import Overflow, Recipe
from worker.images.tensor import normalise
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import ov

Floats = npt.NDArray[np.float32]

STEPS = 127
"""Largest magnitude of a symmetric INT8 weight; -128 is not used, so that both signs have one scale."""

LEVELS = 255
"""Largest level of a weight with zero point."""

TINY = float(np.finfo(np.float32).tiny)
"""A step below this is denormal, and its channel as good as zero."""

CONVOLUTIONS = {"Convolution": 1, "DeformableConvolution": 2}
"""Operation -> input that takes its weights `[out, in, k, k]`."""

OFFSET_PORTS = (1, 3)
"""Inputs of a deformable convolution that take offsets and modulator."""

SMOOTH_ALPHA = 0.95
"""NNCF's own for matrix products of transformers."""


def weight_only(model: Any) -> Any:
    """INT8 weights for every matrix product, convolution and deformable convolution of a float32 network."""
    return compress_weights(model, {**CONVOLUTIONS, "MatMul": 1})


def post_training(
    model: Any,
    tensors: npt.NDArray[np.uint8],
    recipe: Recipe | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Any:
    """INT8 weights and activations, with ranges from pictures prepared as the worker prepares them.

    Args:
        model: float32 network with one input `[1, 3, R, R]`.
        tensors: u8 `[n, R, R, 3]`, from `worker.images.tensor.to_tensor`.
        recipe: What to leave in float.
        progress: Called with the count of pictures read so far; each is read `recipe.passes` times.

    Returns:
        The network with FakeQuantize operations, and deformable weights in INT8.

    Raises:
        SetupError: NNCF is not installed.
        BundleError: NNCF refuses the network.
    """
    nncf = _nncf()
    recipe = recipe or Recipe()
    done = 0

    def prepared(index: int) -> npt.NDArray[np.float32]:
        nonlocal done
        done += 1
        progress(done)
        return normalise(tensors[index : index + 1], IMAGENET_MEAN, IMAGENET_SCALE)

    with _quietly(nncf):
        model = nncf.quantize(
            model,
            nncf.Dataset(range(len(tensors)), prepared),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(tensors),
            fast_bias_correction=True,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=offset_convolutions(model)) if recipe.float_offsets else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=_OVERFLOW[recipe.overflow](nncf),
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(
                    matmul=SMOOTH_ALPHA if recipe.smooth else -1, convolution=-1
                ),
            ),
        )
    # Convolutions left in float have float weights still; those that NNCF took no longer have a plain constant.
    return compress_weights(model, CONVOLUTIONS)


def offset_convolutions(model: Any) -> list[str]:
    """Friendly names of the convolutions whose result says where, and how strongly, a deformable one samples."""
    found: dict[str, None] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "DeformableConvolution":
            for port in OFFSET_PORTS[: node.get_input_size() - 2]:
                found[_convolution_behind(node.input_value(port).get_node()).get_friendly_name()] = None
    return list(found)


def compress_weights(model: Any, ports: Mapping[str, int]) -> Any:
    """Store plain float32 weights as INT8, in the forms of the module's docstring.

    Args:
        model: Network; weights that are no float32 constant are passed over.
        ports: Type of operation -> input of its weights `[out, ...]`.
    """
    ops = ov.opset13
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        weight = node.input_value(ports[kind]).get_node() if kind in ports else None
        if weight is None or weight.get_type_name() != "Constant" or weight.get_element_type() != ov.Type.f32:
            continue
        if kind == "MatMul":
            levels, zero, scale = with_zero_point(weight.data)
            whole = ops.subtract(*(ops.convert(ops.constant(values), "f32") for values in (levels, zero)))
        else:
            signed, scale = symmetric(weight.data)
            whole = ops.convert(ops.constant(signed), "f32")
        node.input(ports[kind]).replace_source_output(ops.multiply(whole, ops.constant(scale)).output(0))
    model.validate_nodes_and_infer_types()
    return model


def symmetric(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Levels and scale with `weight ~ scale * levels`.

    Args:
        weight: `[out, ...]`.

    Returns:
        Levels of the same shape, -127 to 127, and scales `[out, 1, ...]`; a channel of zeros has scale 1.
    """
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.where(largest > STEPS * TINY, largest / STEPS, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def with_zero_point(weight: Floats) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Floats]:
    """Levels, zero point and scale with `weight ~ scale * (levels - zero)`; a range without 0 is stretched to it.

    Args:
        weight: `[out, in]`.

    Returns:
        Levels of the same shape, zero points and scales `[out, 1]`; a channel of zeros has scale 1.
    """
    low = np.minimum(weight.min(1, keepdims=True), 0)
    span = np.maximum(weight.max(1, keepdims=True), 0) - low
    scale = np.where(span > LEVELS * TINY, span / LEVELS, 1).astype(np.float32)
    zero = np.rint(-low / scale)
    levels = np.clip(np.rint(weight / scale) + zero, 0, LEVELS)
    return levels.astype(np.uint8), zero.astype(np.uint8), scale


_OVERFLOW: dict[Overflow, Callable[[Any], Any]] = {
    Overflow.NOWHERE: lambda nncf: nncf.OverflowFix.DISABLE,
    Overflow.FIRST_LAYER: lambda nncf: nncf.OverflowFix.FIRST_LAYER,
    Overflow.EVERYWHERE: lambda nncf: nncf.OverflowFix.ENABLE,
}


def _nncf() -> Any:
    """NNCF, quiet.

    It reports its use through OpenVINO's telemetry package. `worker.model.inference.runtime`, imported above, has
    hidden that, and NNCF then puts a stub in its place.
    """
    try:
        nncf = importlib.import_module("nncf")
    except ImportError as error:
        raise SetupError("INT8 variants need NNCF: pip install 'maskmill[convert]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function would change everybody's handlers too
    return nncf


@contextlib.contextmanager
def _quietly(nncf: Any) -> Iterator[None]:
    """NNCF's errors as ours, and no warnings: they speak of the future of NNCF, not of this network."""
    kinds: tuple[type[Exception], ...] = (
        nncf.ValidationError,
        nncf.InternalError,
        nncf.UnsupportedModelError,
        nncf.InvalidQuantizerGroupError,
        nncf.ParameterNotSupportedError,
        nncf.StatisticsCacheError,
        RuntimeError,  # OpenVINO's own
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except kinds as error:
        raise BundleError(f"NNCF refuses the network: {error}") from error


def _convolution_behind(node: Any) -> Any:
    """The first convolution upstream, along first inputs: past bias, split, sigmoid and factor."""
    while node.get_type_name() != "Convolution":
        if not node.get_input_size():
            raise BundleError(f"no convolution computes what {node.get_friendly_name()} starts from")
        node = node.input_value(0).get_node()
    return node
