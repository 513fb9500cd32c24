"""Store a network with fewer bits: INT8 weights only, or INT8 weights and activations by post-training quantisation.

    weight_only(model)                    INT8 weights, float arithmetic (or activations quantised on the fly)
    post_training(model, tensors, ...)    INT8 arithmetic, with ranges taken from pictures

NNCF does the post-training quantisation. It does not support deformable convolutions, so these compute in float in both
forms. Their weights can still be stored in INT8, as

    convolutions, also deformable    w = scale * i8             one scale per output channel
    matrix products                  w = scale * (u8 - zero)    one scale and one zero point per output channel

The CPU plugin runs such matrix products on the integers. It expands the weights of convolutions once, when it compiles
the network; those of 1x1 convolutions, a few thousand values, it expands at every inference.

Both functions change the model they are given. Import this module only in a separate process: NNCF loads SciPy and
pandas.
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
from worker.convert.network_input import network_input
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.model.inference.facts import NetworkFacts, read_facts
from worker.model.inference.runtime import ov

Floats = npt.NDArray[np.float32]

STEPS = 127
"""Largest magnitude of a symmetric INT8 weight; -128 is not used, so that both signs have one scale."""

LEVELS = 255
"""Largest level of a weight with a zero point."""

TINY = float(np.finfo(np.float32).tiny)
"""A step below this is denormal; its channel is treated as zero."""

CONVOLUTIONS = {"Convolution": 1, "DeformableConvolution": 2}
"""Index of the input that takes the weights `[out, in, k, k]`, by operation."""

_WEIGHTS = {**CONVOLUTIONS, "MatMul": 1}

OFFSET_PORTS = (1, 3)
"""Inputs of a deformable convolution that take offsets and modulator."""

SMOOTH_ALPHA = 0.95
"""NNCF's own value for matrix products of transformers."""


def weight_only(model: Any) -> Any:
    """Store the weights of all matrix products and convolutions, also deformable ones, of a float network in INT8.

    Raises:
        BundleError: no weight is a constant that can be stored so, and the result would be the same network.
    """
    if not _compressible(model, _WEIGHTS):
        raise BundleError(
            "INT8 weights: the network has no matrix product or convolution whose weights are a constant of 16 or 32 "
            "bits, so nothing would change; leave int8wo out, or start from the float network"
        )
    return compress_weights(model, _WEIGHTS)


def post_training(
    model: Any,
    tensors: npt.NDArray[np.uint8],
    config: QuantisationConfig | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    *,
    facts: NetworkFacts | None = None,
) -> Any:
    """Quantise weights and activations to INT8, with ranges from pictures.

    Args:
        model: float32 network with one input `[1, 3, H, W]`.
        tensors: u8 `[n, H, W, 3]`, made by `worker.images.tensor.to_tensor` as for the worker.
        config: what to quantise; the defaults if None.
        on_progress: called with the number of pictures read so far; each is read `config.passes` times.
        facts: how the network is fed; those in its section `model_info` if None.

    Returns:
        The network with FakeQuantize operations, and deformable weights in INT8.

    Raises:
        SetupError: NNCF is not installed.
        BundleError: NNCF cannot quantise the network.
    """
    nncf = _nncf()
    config = config or QuantisationConfig()
    facts = facts or read_facts(model, "the network")
    with _nncf_errors(nncf):
        model = nncf.quantize(
            model,
            _dataset(nncf, tensors, facts, on_progress),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(tensors),
            fast_bias_correction=True,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=offset_convolutions(model)) if config.float_offsets else None,
            advanced_parameters=_advanced_parameters(nncf, config),
        )
    # Convolutions that stayed in float still have float weights; quantised ones have no plain constant any more.
    return compress_weights(model, CONVOLUTIONS)


def _dataset(nncf: Any, tensors: npt.NDArray[np.uint8], facts: NetworkFacts, on_progress: Callable[[int], None]) -> Any:
    """Wrap the pictures as an NNCF dataset that feeds each one as the engine does, and reports its reading."""
    done = 0

    def prepared(index: int) -> npt.NDArray[np.float32]:
        nonlocal done
        done += 1
        on_progress(done)
        return network_input(tensors[index : index + 1], facts)

    return nncf.Dataset(range(len(tensors)), prepared)


def _advanced_parameters(nncf: Any, config: QuantisationConfig) -> Any:
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=_OVERFLOW[config.overflow](nncf),
        disable_bias_correction=not config.bias_correction,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(
            matmul=SMOOTH_ALPHA if config.smooth else -1, convolution=-1
        ),
    )


def offset_convolutions(model: Any) -> list[str]:
    """Return the friendly names of the convolutions that compute offsets and modulators of deformable convolutions."""
    found: dict[str, None] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "DeformableConvolution":
            for port in OFFSET_PORTS[: node.get_input_size() - 2]:
                found[_convolution_upstream(node.input_value(port).get_node()).get_friendly_name()] = None
    return list(found)


def compress_weights(model: Any, ports: Mapping[str, int]) -> Any:
    """Store float weights as INT8, in the forms of the module's docstring.

    Args:
        model: network, changed in place. Weights that are not a constant of 16 or 32 bits are left alone.
        ports: index of the input that takes the weights `[out, ...]`, by type of operation.
    """
    ops = ov.opset13
    for node, weight in _compressible(model, ports):
        kind, exact = node.get_type_name(), np.asarray(weight.get_data(), np.float32)
        if kind == "MatMul":
            levels, zero, scale = with_zero_point(exact)
            whole = ops.subtract(*(ops.convert(ops.constant(values), "f32") for values in (levels, zero)))
        else:
            signed, scale = symmetric(exact)
            whole = ops.convert(ops.constant(signed), "f32")
        rounded = ops.multiply(whole, ops.constant(scale))
        needed = node.get_input_element_type(ports[kind])
        if needed != ov.Type.f32:
            rounded = ops.convert(rounded, needed.get_type_name())
        node.input(ports[kind]).replace_source_output(rounded.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _compressible(model: Any, ports: Mapping[str, int]) -> list[tuple[Any, Any]]:
    """The operations whose weights can be stored in INT8, each with the constant that holds them.

    A constant of 16 bits may stand behind a Convert, as `ov.save_model` writes it.
    """
    found = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ports:
            continue
        weight = node.input_value(ports[kind]).get_node()
        if weight.get_type_name() == "Convert":
            weight = weight.input_value(0).get_node()
        if weight.get_type_name() == "Constant" and weight.get_element_type() in (ov.Type.f32, ov.Type.f16):
            found.append((node, weight))
    return found


def symmetric(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Quantise symmetrically: `weight ~ scale * levels`.

    Args:
        weight: `[out, ...]`.

    Returns:
        Levels of the same shape, -127 to 127, and scales `[out, 1, ...]`; a channel of zeros has scale 1.
    """
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.where(largest > STEPS * TINY, largest / STEPS, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def with_zero_point(weight: Floats) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Floats]:
    """Quantise with a zero point: `weight ~ scale * (levels - zero)`. A range without 0 is extended to include it.

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
    """Import NNCF and silence its log.

    NNCF reports its use through OpenVINO's telemetry package. `worker.model.inference.runtime`, imported above, hides
    that package, and NNCF then uses a stub.
    """
    try:
        nncf = importlib.import_module("nncf")
    except ImportError as error:
        raise SetupError("INT8 variants require NNCF: pip install 'maskmill[convert]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # not `nncf.set_log_level`, which also changes handlers
    return nncf


@contextlib.contextmanager
def _nncf_errors(nncf: Any) -> Iterator[None]:
    """Convert NNCF's errors to `BundleError`, and hide its warnings, which announce changes in future releases."""
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
        raise BundleError(f"NNCF cannot quantise the network: {error}") from error


def _convolution_upstream(node: Any) -> Any:
    """Follow first inputs upstream to the nearest convolution: past bias, split, sigmoid and factor."""
    while node.get_type_name() != "Convolution":
        if not node.get_input_size():
            raise BundleError(f"no convolution found upstream of {node.get_friendly_name()}")
        node = node.input_value(0).get_node()
    return node
