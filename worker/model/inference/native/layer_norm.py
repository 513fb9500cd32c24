"""Replace the layer norms of an INT8 encoder by the native kernels while a model is loaded.

    MVN -> Multiply -> Add -> FakeQuantize   becomes   LayerNorm with u8 output -> FakeQuantize, which is dropped

OpenVINO writes the norm in the arithmetic of the float part, and reads it again to quantise it. The native operation
(see `worker.kernels`) does both in one pass, with the same levels but for rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.contract.settings import NativeKernels
from worker.model.inference.native import operations
from worker.model.inference.native.levels import Array, Levels, as_stored, as_values, folded, levels_of, only_follower
from worker.model.inference.native.operations import Replacement
from worker.model.inference.runtime import ov

_OPERATION = "LayerNorm"
_CHANNELS = 16
"""Channels must be a multiple of this."""


def replace(model: Any, *, mode: NativeKernels, int8: bool, floats: str) -> Replacement:
    """Replace every layer norm in `model` that one FakeQuantize alone reads; register the operation with the Core.

    Args:
        model: changed in place; its shapes must be static.
        mode: which of the native kernels may be used.
        int8: whether the network is quantised; others are left unchanged.
        floats: arithmetic of its float part: f32, bf16 or f16.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    library = operations.usable("layer_norm", mode) if found and int8 else None
    kernel = None if library is None else library.layer_norm()
    if library is None or kernel is None:
        return Replacement(0, len(found), None, "", ())
    create = operations.creator(library)
    replaced = sum(_replace_one(node, create, floats) for node in found)
    left = len(found) - replaced
    return Replacement(replaced, left, kernel if replaced else None, library.digest if replaced else "", ())


def _replace_one(norm: Any, create: Any, floats: str) -> bool:
    """Replace one norm; return False if it has another form."""
    if not _is_over_channels(norm):
        return False
    gamma = _scale_or_shift(norm, "Multiply")
    beta = None if gamma is None else _scale_or_shift(gamma[1], "Add")
    if gamma is None or beta is None:
        return False
    quantise = only_follower(beta[1])
    levels = None if quantise is None else levels_of(quantise)
    if quantise is None or levels is None:
        return False
    inputs = [as_stored(norm.input_value(0), floats), *(ov.opset13.constant(one[0]) for one in (gamma, beta))]
    made = create(_OPERATION, inputs, _attributes(norm, levels))
    quantise.input(0).replace_source_output(as_values(made, levels).output(0))
    return True


def _attributes(norm: Any, levels: Levels) -> dict[str, float]:
    return {"epsilon": norm.get_attributes()["eps"], "per_unit": levels.per_unit, "zero": levels.zero}


def _is_over_channels(norm: Any) -> bool:
    """Whether a norm of tokens `[1, tokens, channels]` is over their channels, with the variance of a layer norm."""
    shape, axes, given = norm.input_value(0).get_partial_shape(), folded(norm.input_value(1)), norm.get_attributes()
    if shape.is_dynamic or axes is None or axes.size != 1:
        return False
    sides = list(shape.to_shape())
    return (
        len(sides) == 3  # noqa: PLR2004  batch, tokens, channels
        and sides[0] == 1
        and sides[2] % _CHANNELS == 0
        and int(axes.item()) in (-1, 2)
        and bool(given["normalize_variance"])
        and str(given["eps_mode"]).upper() == "INSIDE_SQRT"
    )


def _scale_or_shift(node: Any, kind: str) -> tuple[Array, Any] | None:
    """Return one value a channel that the only follower applies, f32 `[channels]`, and the follower."""
    follower, channels = only_follower(node), node.output(0).get_shape()[2]
    if follower is None or follower.get_type_name() != kind:
        return None
    values = folded(follower.input_value(1))
    if values is None or values.size != channels or values.shape[-1] != channels:
        return None
    return np.ascontiguousarray(values.reshape(channels).astype(np.float32)), follower
