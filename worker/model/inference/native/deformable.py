"""Replace the deformable convolutions of a graph by the native kernels while a model is loaded.

    DeformableConvolution-8 [-> batch norm, scale, shift] [-> ReLU]   becomes   FusedDeformableConvolution
    ... -> FakeQuantize from 0                                        becomes   ... with u8 output, channels last

OpenVINO's own operation runs in f32 only, whatever the precision of the rest of the network: half of the inference time
of BiRefNet-lite in INT8. The native operation (see `worker.kernels`) multiplies in the arithmetic of the network:

- i8: weights have one scale per output, samples one scale per pixel, taken from a bound on the samples of that pixel.
  The bound is computed from each image, so there is no calibration and no saturation.
- bf16, f32: the precision requested for the float part.

In i8 it also writes what a quantised reader takes, u8 with channels last, so that no f32 map is written, reordered and
quantised: the largest are 256 channels at a quarter of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.settings import NativeKernels
from worker.kernels.library import Arithmetic, Library, Missing
from worker.model.inference.native import operations
from worker.model.inference.native.levels import folded, levels_of, only_follower
from worker.model.inference.native.operations import Replacement
from worker.model.inference.runtime import ov

ARITHMETIC: tuple[Arithmetic, ...] = ("f32", "bf16", "i8")

Floats = npt.NDArray[np.float32]

_OPERATION = "FusedDeformableConvolution"
_COST = "BiRefNet-lite takes about twice as long in INT8"


def replace(model: Any, *, mode: NativeKernels, int8: bool, floats: str) -> Replacement:
    """Replace every supported deformable convolution in `model`, and register the new operation with the Core.

    Args:
        model: changed in place; its shapes must be static.
        mode: which of the native kernels may be used.
        int8: whether the network is quantised.
        floats: arithmetic of its float part: f32, bf16 or f16.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "DeformableConvolution"]
    if not found or not operations.uses(mode, "deformable_convolution"):
        return Replacement(0, len(found), None, "", ())
    library = operations.installed()
    if isinstance(library, Missing):
        note = (
            f"{library.reason}: {len(found)} deformable convolutions run on OpenVINO's kernel, in f32 only; {_COST}. "
            "Build them with `worker kernels build`, or hide this note with MASKMILL_MODEL__KERNELS=off"
        )
        return Replacement(0, len(found), None, "", (note,))
    try:
        chosen = _choose(library, int8=int8, floats=floats)
    except OSError as error:
        return Replacement(0, len(found), None, "", (f"the native kernels cannot be loaded: {error}",))
    if chosen is None:
        return Replacement(0, len(found), None, "", ("no native kernel runs on this CPU: AVX2 is required",))
    arithmetic, kernel = chosen
    create = operations.creator(library)
    replaced = sum(_replace_one(node, create, arithmetic) for node in found)
    left = len(found) - replaced
    notes = (f"{left} deformable convolutions are of a kind that the native kernels do not support",) if left else ()
    return Replacement(replaced, left, kernel if replaced else None, library.digest if replaced else "", notes)


def _choose(library: Library, *, int8: bool, floats: str) -> tuple[Arithmetic, str] | None:
    """Return arithmetic and kernel: those of the network, else the next more exact that this CPU supports."""
    preferred: list[Arithmetic] = ["i8"] if int8 else []
    preferred += ["bf16"] if floats == "bf16" else []
    for arithmetic in (*preferred, "f32"):
        if kernel := library.kernel(arithmetic):
            return arithmetic, kernel
    return None


def _replace_one(node: Any, create: Callable[..., Any], arithmetic: Arithmetic) -> bool:
    """Replace one operation and the operations folded into it; return False if it is not supported."""
    given = node.get_attributes()
    weights = _constant(node.input_value(2)) if _is_supported(node, given) else None
    if weights is None:
        return False
    weights, bias, relu, last = _fold_followers(node, weights)
    inputs = [
        node.input_value(0),
        node.input_value(1),
        ov.opset13.constant(weights),
        node.input_value(3),
        ov.opset13.constant(bias),
    ]
    attributes: dict[str, Any] = {
        name: list(given[name]) for name in ("strides", "pads_begin", "pads_end", "dilations")
    }
    attributes |= {"arithmetic": arithmetic, "relu": relu}
    quantised = only_follower(last) if arithmetic == "i8" else None
    step = None if quantised is None else _step(quantised, last)
    if step is None:
        result = create(_OPERATION, [*inputs], attributes)
    else:
        # The FakeQuantize stays: OpenVINO computes its reader in INT8 because of it, and then drops it.
        result = _as_values(create(_OPERATION, [*inputs], attributes | {"step": step}), step)
    result.set_friendly_name(last.get_friendly_name())
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(result.output(0))
    return True


def _step(quantise: Any, before: Any) -> float | None:
    """Return the distance of two levels of a FakeQuantize of all channels to u8 from 0; None for other operations."""
    levels = levels_of(quantise)
    if levels is None or levels.zero or quantise.input_value(0).get_node() != before:
        return None
    return 1 / levels.per_unit


def _as_values(levels: Any, step: float) -> Any:
    """Return u8 levels [N, H, W, C] as the values [N, C, H, W] that they stand for, in the form OpenVINO folds."""
    ops = ov.opset13
    planes = ops.transpose(levels, ops.constant(np.array([0, 3, 1, 2], np.int32)))
    return ops.multiply(ops.convert(planes, "f32"), ops.constant(np.full((1, 1, 1, 1), step, np.float32)))


def _is_supported(node: Any, given: dict[str, Any]) -> bool:
    """Whether an operation is modulated, has one group, pads with zeros, and takes static f32 inputs."""
    return (
        node.get_type_info().version_id == "opset8"
        and node.get_input_size() == 4  # noqa: PLR2004  data, offsets, weights, mask
        and given["group"] == given["deformable_group"] == 1
        and bool(given["bilinear_interpolation_pad"])
        and given["auto_pad"] == "explicit"
        and all(value.get_partial_shape().is_static for value in node.input_values())
        and all(value.get_element_type() == ov.Type.f32 for value in node.input_values())
    )


def _constant(value: Any) -> Floats | None:
    """Values of a constant, which may be stored in half precision or in INT8 with a scale; None if it is computed."""
    values = folded(value)
    return None if values is None else values.astype(np.float32)


def _fold_followers(node: Any, weights: Floats) -> tuple[Floats, Floats, bool, Any]:
    """Fold the following operations; return weights, bias, whether a ReLU is included, and the last folded one."""
    bias = np.zeros(weights.shape[0], np.float32)
    last = node
    while (follower := only_follower(last)) is not None:
        if follower.get_type_name() == "Relu":
            return weights, bias, True, follower
        affine = _scale_and_shift(follower, last, weights.shape[0])
        if affine is None:
            break
        scale, shift = affine
        weights = (weights * scale[:, None, None, None]).astype(np.float32)
        bias = (bias * scale + shift).astype(np.float32)
        last = follower
    return weights, bias, False, last


def _scale_and_shift(node: Any, before: Any, outputs: int) -> tuple[Floats, Floats] | None:
    """Return scale and shift per output [outputs] of an operation that does nothing else; None for others."""
    kind = node.get_type_name()
    if kind == "BatchNormInference":
        gamma, beta, mean, variance = (_constant(node.input_value(index)) for index in range(1, 5))
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.get_attributes()["epsilon"])
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)
    if kind not in ("Add", "Multiply"):
        return None
    other = next(value for value in node.input_values() if value.get_node() != before)
    values = _constant(other)
    if values is None or values.shape not in ((1, outputs, 1, 1), (outputs, 1, 1), (1,), ()):
        return None
    per_output = np.broadcast_to(values.reshape(-1), (outputs,)).astype(np.float32)
    if kind == "Add":
        return np.ones(outputs, np.float32), per_output
    return per_output, np.zeros(outputs, np.float32)
