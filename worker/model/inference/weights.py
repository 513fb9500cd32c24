"""Check the weights of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError
from worker.model.inference.runtime import ov

_BLOCK = 1 << 20  # numbers per step, so that no copy of a large weight is made


def constants(model: Any) -> list[Any]:
    """Return the constants of a graph."""
    return [node for node in model.get_ops() if node.get_type_name() == "Constant"]


def check_numbers(model: Any, where: str, remedy: str) -> None:
    """Check that every weight is a number. One NaN spreads to whole masks, and saving in 16 bits hides it.

    Infinity is allowed: masks of attention use it.

    Args:
        model: an `openvino.Model`.
        where: the file, for the message.
        remedy: what to do about it, for the message.

    Raises:
        BundleError: one is not; names the constant.
    """
    for node in constants(model):
        kind = node.get_element_type()
        if kind.is_real() and _holds_nan(node.data if kind in (ov.Type.f16, ov.Type.f32) else node.get_data()):
            raise BundleError(f"{where}: weight {node.get_friendly_name()} holds NaN, {remedy}")


def _holds_nan(values: npt.NDArray[Any]) -> bool:
    flat = values.reshape(-1)
    return any(np.isnan(flat[at : at + _BLOCK]).any() for at in range(0, flat.size, _BLOCK))
