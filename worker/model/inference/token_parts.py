"""Compute the widest linear layers of an INT8 network in parts while a model is loaded, on CPUs without VNNI.

    tokens -> MatMul, Add, [Gelu,] FakeQuantize   becomes   tokens -> Split -> the same for each part -> Concat

Without VNNI, oneDNN (seen with OpenVINO 2026.4) adds up such a layer for all tokens in 32 bits before it writes u8. The
buffer is kept by every stream and used by nothing else: for the encoder of BiRefNet-lite 24 MiB at 512, 96 MiB at 1024.
Layers are cut so that the largest buffer becomes an eighth. Each token is computed as before, so results are the same;
parts share the packed weights, and the parts of the tokens are views of the whole. With VNNI there is no such buffer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from worker.cpu.isa import VNNI
from worker.model.inference.runtime import ov

PARTS = 8
"""Of the layer with the largest buffer; smaller layers get fewer, or stay whole."""

_SUM_BYTES = 4
_SMALLEST_BYTES = 1 << 20
"""Buffers up to this size are left alone: a part costs memory too, some 50 kB for its node in every stream."""

_TOKENS_AXIS = 1


@dataclass(frozen=True)
class _Layer:
    """A linear layer on tokens `[1, tokens, channels]` and the operations up to its quantised output."""

    matmul: Any
    chain: tuple[Any, ...]
    """The operations after the product, the FakeQuantize last; each reads the one before it and constants."""

    tokens: int
    sums_bytes: int


def has_buffer(cpu_flags: Iterable[str]) -> bool:
    """Return whether oneDNN keeps the sums of a whole layer on a CPU with these flags of /proc/cpuinfo."""
    return VNNI.isdisjoint(cpu_flags)


def replace(model: Any) -> int:
    """Cut the widest layers of `model` into parts; return the number of layers that were cut.

    Args:
        model: changed in place; its shapes must be static. A layer whose tokens cannot be divided stays whole.
    """
    found = [layer for node in model.get_ordered_ops() if (layer := _layer(node)) is not None]
    limit = max((layer.sums_bytes for layer in found), default=0) // PARTS
    cut = 0
    for layer in found:
        parts = _parts(layer, max(limit, _SMALLEST_BYTES))
        if parts > 1:
            _cut(layer, parts)
            cut += 1
    return cut


def _layer(node: Any) -> _Layer | None:
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return None
    shapes = node.output(0).get_partial_shape(), node.input_value(1).get_partial_shape()
    if any(shape.is_dynamic for shape in shapes) or [shape.rank.get_length() for shape in shapes] != [3, 2]:
        return None
    batch, tokens, outputs = shapes[0].to_shape()
    chain = _to_quantised(node)
    if batch != 1 or not chain or node.input_value(0).get_node().get_type_name() != "FakeQuantize":
        return None
    return _Layer(node, chain, tokens, tokens * outputs * _SUM_BYTES)


def _to_quantised(node: Any) -> tuple[Any, ...]:
    """Return the operations from a bias to a FakeQuantize of all channels that oneDNN computes with the product."""
    chain: list[Any] = []
    while True:
        targets = list(node.output(0).get_target_inputs())
        if len(targets) != 1 or targets[0].get_index() != 0:
            return ()
        node = targets[0].get_node()
        chain.append(node)
        constants = [node.input_value(index) for index in range(1, node.get_input_size())]
        if any(not _is_per_channel(value) for value in constants):
            return ()
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            return tuple(chain)
        if kind not in ("Add", "Gelu"):
            return ()


def _is_per_channel(value: Any) -> bool:
    """Whether a value is constant and the same for all tokens."""
    shape = value.get_partial_shape()
    return value.get_node().get_type_name() == "Constant" and all(side == 1 for side in list(shape.to_shape())[:-1])


def _parts(layer: _Layer, limit: int) -> int:
    """Return the power of two of parts that keeps the sums of a part within the limit."""
    parts = 1
    while layer.sums_bytes > parts * limit and layer.tokens % (2 * parts) == 0:
        parts *= 2
    return parts


def _cut(layer: _Layer, parts: int) -> None:
    ops = ov.opset13
    axis = ops.constant(_TOKENS_AXIS, ov.Type.i64)
    pieces = []
    for part in ops.split(layer.matmul.input_value(0), axis, parts).outputs():
        result = part
        for node in (layer.matmul, *layer.chain):
            result = _again(node, result)
        pieces.append(result)
    last = layer.chain[-1]
    whole = ops.concat(pieces, _TOKENS_AXIS)
    whole.set_friendly_name(last.get_friendly_name())
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(whole.output(0))


def _again(node: Any, value: Any) -> Any:
    """Return the output of the same operation on another first input."""
    ops, given = ov.opset13, node.get_attributes()
    rest = [node.input_value(index) for index in range(1, node.get_input_size())]
    match node.get_type_name():
        case "MatMul":
            made = ops.matmul(value, *rest, given["transpose_a"], given["transpose_b"])
        case "Add":
            made = ops.add(value, *rest)
        case "Gelu":
            made = ops.gelu(value, given["approximation_mode"].lower())
        case _:
            made = ops.fake_quantize(value, *rest, given["levels"])
    return made.output(0)
