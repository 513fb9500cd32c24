"""Deformable convolutions of a graph replaced by the native one, while it is loaded.

    DeformableConvolution-8 [-> batch norm, scale, shift] [-> ReLU]   becomes   FusedDeformableConvolution

OpenVINO's own runs in f32 only, whatever the rest of the network runs in: half of the time of BiRefNet-lite in INT8.
The native one (see `worker.kernels`) multiplies in the arithmetic of the network around it:

- i8: weights per output, samples per pixel with a scale from a bound on that pixel's samples. The bound follows the
  picture, so nothing is calibrated and nothing saturates.
- bf16, f32: as asked for the float part.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from worker.kernels import library
from worker.kernels.library import Arithmetic, Library, Missing
from worker.model.inference.runtime import add_extension, ov, version

ARITHMETIC: tuple[Arithmetic, ...] = ("f32", "bf16", "i8")

Mode = Literal["auto", "off"]
Floats = npt.NDArray[np.float32]

_STORED_WITH: dict[str, Callable[[Floats, Floats], Floats]] = {"Multiply": np.multiply, "Subtract": np.subtract}
"""What stands between a constant in INT8 and its use: scale and zero point."""

_OPERATION = "FusedDeformableConvolution"
_COST = "BiRefNet-lite takes about 1.4 times as long in INT8"


@dataclass(frozen=True)
class Replacement:
    """What became of the deformable convolutions of a graph."""

    replaced: int
    left: int
    """Still OpenVINO's own."""

    kernel: str | None
    """Inner loops that run the replaced ones, such as `avx512_vnni`; None if none was replaced."""

    digest: str
    """Of the library; empty if it is not used."""

    notes: tuple[str, ...]

    def describe(self) -> str:
        """In words: `20 of 20 on avx512_vnni`."""
        total = self.replaced + self.left
        if not total:
            return "none in this network"
        return f"{self.replaced} of {total} on {self.kernel}" if self.replaced else f"{total} on OpenVINO's own kernel"


def installed() -> Library | Missing:
    """The library that fits the OpenVINO of this process."""
    return library.find(version())


def replace(model: Any, *, mode: Mode, int8: bool, floats: str) -> Replacement:
    """Replace what can be replaced; `model` is changed, and the Core taught the new operation.

    Args:
        model: shapes must be static.
        mode: `off` leaves everything as it is.
        int8: whether the network around is quantised.
        floats: arithmetic of its float part: f32, bf16 or f16.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "DeformableConvolution"]
    if not found or mode == "off":
        return Replacement(0, len(found), None, "", ())
    native = installed()
    if isinstance(native, Missing):
        note = (
            f"{native.reason}: {len(found)} deformable convolutions run on OpenVINO's own, in f32 only; {_COST}. "
            "`worker kernels build` builds them, MASKMILL_MODEL__KERNELS=off hides this note"
        )
        return Replacement(0, len(found), None, "", (note,))
    try:
        chosen = _choose(native, int8=int8, floats=floats)
    except OSError as error:
        return Replacement(0, len(found), None, "", (f"the native kernels cannot be loaded: {error}",))
    if chosen is None:
        return Replacement(0, len(found), None, "", ("this CPU has no native kernel: AVX2 is needed",))
    arithmetic, kernel = chosen
    add_extension(str(native.path))
    factory = importlib.import_module("openvino.utils.node_factory").NodeFactory()
    factory.add_extension(str(native.path))
    replaced = sum(_replace_one(node, factory.create, arithmetic) for node in found)
    left = len(found) - replaced
    notes = (f"{left} deformable convolutions are not of the kind that the native kernel knows",) if left else ()
    return Replacement(replaced, left, kernel if replaced else None, native.digest if replaced else "", notes)


def _choose(native: Library, *, int8: bool, floats: str) -> tuple[Arithmetic, str] | None:
    """Arithmetic and kernel: the network's own, else the next more exact one that this CPU has."""
    wanted: list[Arithmetic] = ["i8"] if int8 else []
    wanted += ["bf16"] if floats == "bf16" else []
    for arithmetic in (*wanted, "f32"):
        if kernel := native.kernel(arithmetic):
            return arithmetic, kernel
    return None


def _replace_one(node: Any, create: Callable[..., Any], arithmetic: Arithmetic) -> bool:
    """Replace one operation and what follows it; False if it is of another kind."""
    given = node.get_attributes()
    weights = _known(node.input_value(2)) if _fits(node, given) else None
    if weights is None:
        return False
    weights, bias, relu, last = _what_follows(node, weights)
    inputs = [
        node.input_value(0),
        node.input_value(1),
        ov.opset13.constant(weights),
        node.input_value(3),
        ov.opset13.constant(bias),
    ]
    attributes = {name: list(given[name]) for name in ("strides", "pads_begin", "pads_end", "dilations")}
    fused = create(_OPERATION, [*inputs], attributes | {"arithmetic": arithmetic, "relu": relu})
    fused.set_friendly_name(last.get_friendly_name())
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(fused.output(0))
    return True


def _fits(node: Any, given: dict[str, Any]) -> bool:
    """Modulated, one group, zero outside the map, f32, static."""
    return (
        node.get_type_info().version_id == "opset8"
        and node.get_input_size() == 4  # noqa: PLR2004  data, offsets, weights, mask
        and given["group"] == given["deformable_group"] == 1
        and bool(given["bilinear_interpolation_pad"])
        and given["auto_pad"] == "explicit"
        and all(value.get_partial_shape().is_static for value in node.input_values())
        and all(value.get_element_type() == ov.Type.f32 for value in node.input_values())
    )


def _known(value: Any) -> Floats | None:
    """A constant's values, also of one stored in half precision or in INT8 with a scale; None if it is computed."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        values: Floats = node.data.astype(np.float32)
        return values
    if kind == "Convert":
        return _known(node.input_value(0))
    if kind not in _STORED_WITH:
        return None
    left, right = (_known(one) for one in node.input_values())
    return None if left is None or right is None else _STORED_WITH[kind](left, right).astype(np.float32)


def _what_follows(node: Any, weights: Floats) -> tuple[Floats, Floats, bool, Any]:
    """Fold what comes behind: weights, bias, whether a ReLU ends it, and the last operation taken in."""
    bias = np.zeros(weights.shape[0], np.float32)
    last = node
    while (behind := _only_reader(last)) is not None:
        if behind.get_type_name() == "Relu":
            return weights, bias, True, behind
        affine = _scale_and_shift(behind, last, weights.shape[0])
        if affine is None:
            break
        scale, shift = affine
        weights = (weights * scale[:, None, None, None]).astype(np.float32)
        bias = (bias * scale + shift).astype(np.float32)
        last = behind
    return weights, bias, False, last


def _only_reader(node: Any) -> Any | None:
    targets = list(node.output(0).get_target_inputs())
    return targets[0].get_node() if len(targets) == 1 else None


def _scale_and_shift(node: Any, before: Any, outputs: int) -> tuple[Floats, Floats] | None:
    """What an operation does to each output, if no more than that."""
    kind = node.get_type_name()
    if kind == "BatchNormInference":
        gamma, beta, mean, variance = (_known(node.input_value(index)) for index in range(1, 5))
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.get_attributes()["epsilon"])
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)
    if kind not in ("Add", "Multiply"):
        return None
    other = next(value for value in node.input_values() if value.get_node() != before)
    values = _known(other)
    if values is None or values.shape not in ((1, outputs, 1, 1), (outputs, 1, 1), (1,), ()):
        return None
    each = np.broadcast_to(values.reshape(-1), (outputs,)).astype(np.float32)
    if kind == "Add":
        return np.ones(outputs, np.float32), each
    return each, np.zeros(outputs, np.float32)
