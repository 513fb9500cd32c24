"""Keep the maps between layers in INT8: residual sums and resizing.

    layer ── quantiser ── Interpolate ── quantiser ── Concat      NNCF: resized in float, rounded twice
    layer ── quantiser ── u8 ── Interpolate ── scale ── Concat    here: the second range serves both sides

OpenVINO keeps no INT8 through a linear Interpolate, so the map is stored in float before it. As u8 it is half as large,
and nothing is converted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.convert.int8.layers import QUANTISER
from worker.model.inference.runtime import ov

Change = tuple[Any, Any]
"""A port that was connected to another output, and what it read before."""

_LEVELS = 256


def share_quantisers(model: Any) -> list[Change]:
    """Let additions of two maps read the values in INT8 that a layer reads as well.

    Where a map is read by a layer and added to another one behind it, as in residual blocks, it would otherwise be
    stored in float and in INT8.
    """
    changed = []
    for quantiser in model.get_ordered_ops():
        source = quantiser.input_value(0) if quantiser.get_type_name() == QUANTISER else None
        if source is None or source.get_node().get_type_name() == "Constant":
            continue
        for port in source.get_target_inputs():
            if port.get_node().get_type_name() == "Add" and not _adds_constant(port.get_node()):
                port.replace_source_output(quantiser.output(0))
                changed.append((port, source))
    return changed


def resize_in_int8(model: Any) -> list[Change]:
    """Let maps be resized in INT8 that are quantised behind it, where they cannot be negative."""
    changed = []
    for resizing in model.get_ordered_ops():
        quantiser = _only_quantiser(resizing) if resizing.get_type_name() == "Interpolate" else None
        limits = _limits(quantiser) if quantiser else None
        if quantiser is None or limits is None:
            continue
        result = _resized(resizing, *limits)
        for port in quantiser.output(0).get_target_inputs():
            changed.append((port, quantiser.output(0)))
            port.replace_source_output(result)
    return changed


def restore(changed: list[Change]) -> None:
    """Take changes back."""
    for port, source in changed:
        port.replace_source_output(source)


def _adds_constant(addition: Any) -> bool:
    return any(value.get_node().get_type_name() in {"Constant", "Convert"} for value in addition.input_values())


def _only_quantiser(node: Any) -> Any | None:
    """Return the quantiser that alone reads a node, past a conversion."""
    targets = list(node.output(0).get_target_inputs())
    reader = targets[0].get_node() if len(targets) == 1 else node
    if reader.get_type_name() == "Convert":
        return _only_quantiser(reader)
    return reader if reader.get_type_name() == QUANTISER else None


def _limits(quantiser: Any) -> tuple[float, float] | None:
    """Return what 255 stands for in front of a quantiser and behind it; None if it has another form than 0 to 255."""
    limits = []
    for port in range(1, 5):
        node = quantiser.input_value(port).get_node()
        node = node.input_value(0).get_node() if node.get_type_name() == "Convert" else node
        if node.get_type_name() != "Constant" or node.get_data().size != 1:
            return None
        limits.append(float(node.get_data().reshape(-1)[0]))
    low, high, output_low, output_high = limits
    return (high, output_high) if low == output_low == 0 and quantiser.get_attributes()["levels"] == _LEVELS else None


def _resized(resizing: Any, high: float, output_high: float) -> Any:
    ops, given = ov.opset13, resizing.get_attributes()

    def constant(value: float) -> Any:
        return ops.constant(np.float32(value))

    source = resizing.input_value(0)
    before = source.get_node()
    if before.get_type_name() == QUANTISER and len(before.output(0).get_target_inputs()) == 1:
        source = before.input_value(0)
    steps = ops.fake_quantize(source, constant(0), constant(high), constant(0), constant(_LEVELS - 1), _LEVELS)
    maps = ops.interpolate(
        ops.convert(steps, "u8"),
        resizing.input_value(1),
        given["mode"],
        given["shape_calculation_mode"],
        given["pads_begin"],
        given["pads_end"],
        given["coordinate_transformation_mode"],
        given["nearest_mode"],
        given["antialias"],
        given["cube_coeff"],
        *(resizing.input_value(port) for port in range(2, resizing.get_input_size())),
    )
    maps.set_friendly_name(f"{resizing.get_friendly_name()} in INT8")
    return ops.multiply(ops.convert(maps, "f32"), constant(output_high / (_LEVELS - 1))).output(0)
