"""Replace the window attention of an INT8 encoder by the native kernels while a model is loaded.

    tokens of qkv -> Concat padding -> 3 x Gather -> scores -> Softmax -> MatMul -> FakeQuantize -> Gather
    becomes   tokens of qkv -> WindowAttention with u8 output

OpenVINO copies queries, keys and values to windows, computes these in one operation, and copies the result back. The
native operation (see `worker.kernels`) reads the tokens of a window where they are and writes each where it belongs. It
multiplies queries and keys as the levels to which the network quantises them, so the scores are the same; probabilities
are mixed in the precision of the float part.

Only attention in the form that `worker.convert.birefnet.attention` builds is replaced, with queries, keys and output
quantised with 256 levels for all channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.contract.settings import NativeKernels
from worker.model.inference.native import operations
from worker.model.inference.native.levels import (
    LARGEST,
    Array,
    Levels,
    as_stored,
    as_values,
    folded,
    levels_of,
    only_follower,
)
from worker.model.inference.native.operations import Replacement
from worker.model.inference.runtime import ov

_OPERATION = "WindowAttention"
_HEAD_WIDTH = 32
"""Channels of a head that the kernels support: those of every published Swin Transformer."""


class _OtherFormError(Exception):
    """The attention has another form than the kernels support."""


@dataclass(frozen=True)
class _Part:
    """Queries, keys or values of all windows: rows of tokens, chosen by an index, scaled, perhaps quantised."""

    rows: Any
    index: Array
    """`[windows, heads, area]`."""

    levels: Levels | None
    before: float
    """Factor before the quantisation."""

    after: float
    """Factor behind it."""


@dataclass(frozen=True)
class _Layer:
    """The attention of one layer, as the native operation takes it."""

    tokens: Any
    padding: Array
    order: Array
    """`[windows, area]`: index of the token at each position; the number of tokens for padding."""

    bias: Array
    masks: Array | None
    """`[windows, area, area]`."""

    query: Levels
    key: Levels
    score_per_level: float
    output: Any
    """The FakeQuantize of the result."""

    last: Any
    """The last operation of the original."""


def replace(model: Any, *, mode: NativeKernels, int8: bool, floats: str) -> Replacement:
    """Replace the window attention in `model`, and register the new operation with the Core.

    Args:
        model: changed in place; its shapes must be static.
        mode: which of the native kernels may be used.
        int8: whether the network is quantised; others are left unchanged.
        floats: arithmetic of its float part: f32, bf16 or f16.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Softmax", "SoftMax")]
    library = operations.usable("window_attention", mode) if found and int8 else None
    kernel = None if library is None else library.attention("bf16" if floats == "bf16" else "f32")
    if library is None or kernel is None:
        return Replacement(0, len(found), None, "", ())
    create = operations.creator(library)
    replaced = 0
    for node in found:
        try:
            layer = _layer(node)
        except _OtherFormError:
            continue
        _replace_one(layer, create, floats)
        replaced += 1
    left = len(found) - replaced
    return Replacement(replaced, left, kernel if replaced else None, library.digest if replaced else "", ())


def _layer(softmax: Any) -> _Layer:
    """Read the attention around a softmax.

    Raises:
        _OtherFormError: it has another form.
    """
    product, bias, masks = _scores(softmax.input_value(0).get_node())
    mixture = only_follower(softmax)
    if mixture is None or not _is_product(mixture, transpose_b=False):
        raise _OtherFormError
    query, key, value = (_part(one) for one in (product.input_value(0), product.input_value(1), mixture.input_value(1)))
    _need(len({one.rows.get_node().get_name() for one in (query, key, value)}) == 1)
    _need(value.levels is None and value.before == 1)
    _need(all(factor > 0 for one in (query, key) for factor in (one.before, one.after)))
    tokens, padding = _tokens(query.rows)
    windows, heads, area = query.index.shape
    order = query.index[:, 0] // (3 * heads)
    for number, one in enumerate((query, key, value)):
        own = np.arange(heads)[None, :, None] + number * heads
        _need(one.index.shape == (windows, heads, area) and (one.index == order[:, None] * 3 * heads + own).all())
    _need(bias.shape == (heads, area, area) and (masks is None or masks.shape == (windows, area, area)))
    quantised, last = _end(mixture, order, heads, int(tokens.get_shape()[1]))
    if query.levels is None or key.levels is None:
        raise _OtherFormError
    return _Layer(
        tokens,
        padding,
        order,
        bias,
        masks,
        Levels(query.levels.per_unit * query.before, query.levels.zero),
        Levels(key.levels.per_unit * key.before, key.levels.zero),
        query.after * key.after / (query.levels.per_unit * key.levels.per_unit),
        quantised,
        last,
    )


def _scores(node: Any) -> tuple[Any, Array, Array | None]:
    """Return the product of queries and keys, the position bias, and the masks of all windows or None."""
    bias = masks = None
    while node.get_type_name() == "Add":
        first, second = node.input_values()
        _need(len(list(first.get_target_inputs())) == 1)
        added = folded(second)
        if added is None or added.ndim != 4:  # noqa: PLR2004  windows, heads, area, area
            raise _OtherFormError
        if added.shape[1] == 1 and masks is None:
            masks = added[:, 0]
        else:
            _need(bias is None and added.shape[0] == 1)
            bias = added[0]
        node = first.get_node()
    if bias is None or not _is_product(node, transpose_b=True):
        raise _OtherFormError
    return node, bias, masks


def _kinds(masks: Array) -> tuple[Array, Array]:
    """Return the index of the mask of each window, and the masks that differ: four of the hundreds of a network."""
    numbers: dict[bytes, int] = {}
    kinds = np.array([numbers.setdefault(mask.tobytes(), len(numbers)) for mask in masks], np.int32)
    return kinds, np.stack([masks[np.argmax(kinds == number)] for number in range(len(numbers))])


def _part(value: Any) -> _Part:
    """Follow queries, keys or values back to the rows of all tokens."""
    index, levels, before, after = None, None, 1.0, 1.0
    while value.get_node().get_type_name() != "Reshape":
        node = value.get_node()
        kind = node.get_type_name()
        if kind == "Gather" and index is None:
            index, axis = folded(node.input_value(1)), folded(node.input_value(2))
            _need(index is not None and axis is not None and int(axis.item()) == 0)
        elif kind == "FakeQuantize" and levels is None:
            levels, after, before = _levels(node), before, 1.0
        elif kind == "Multiply" and (factor := folded(node.input_value(1))) is not None and factor.size == 1:
            before *= float(factor.item())
        else:
            raise _OtherFormError
        value = node.input_value(0)
    if index is None or index.ndim != 3:  # noqa: PLR2004  windows, heads, area
        raise _OtherFormError
    return _Part(value, index, levels, before, after)


def _tokens(rows: Any) -> tuple[Any, Array]:
    """Return the tokens `[1, tokens, 3 * channels]` of which rows of one head are made, and the token of padding."""
    joined = rows.get_node().input_value(0).get_node()
    _need(list(rows.get_shape())[1:] == [_HEAD_WIDTH])
    _need(joined.get_type_name() == "Concat" and joined.get_input_size() == 2)  # noqa: PLR2004  tokens, padding
    tokens, padding = joined.input_value(0), folded(joined.input_value(1))
    shape = list(tokens.get_shape())
    _need(len(shape) == 3 and shape[0] == 1 and joined.get_attributes()["axis"] in (1, -2))  # noqa: PLR2004
    if padding is None or padding.size != shape[2]:
        raise _OtherFormError
    return tokens, padding.ravel()


def _end(mixture: Any, order: Array, heads: int, tokens: int) -> tuple[Any, Any]:
    """Follow the result back to the order of the tokens; return its FakeQuantize and the last operation.

    Between them are only a reshape to rows of one head, a gather of these, and a reshape to tokens.
    """
    quantised = index = None
    last = mixture
    while (node := only_follower(last)) is not None:
        kind = node.get_type_name()
        if kind == "FakeQuantize" and quantised is None:
            quantised = node
        elif kind == "Gather" and index is None and node.input_value(0).get_node().get_name() == last.get_name():
            index, axis = folded(node.input_value(1)), folded(node.input_value(2))
            _need(axis is not None and int(axis.item()) == 0)
        elif kind != "Reshape":
            break
        last = node
    area, flat = order.shape[1], order.ravel()
    _need(index is not None and index.shape == (tokens, heads) and flat.min() >= 0 and flat.max() <= tokens)
    places = np.full(tokens + 1, -1)
    places[flat] = np.arange(flat.size)
    window, position = np.divmod(places[:tokens], area)
    want = (window * heads * area + position)[:, None] + np.arange(heads)[None] * area
    _need(bool((index == want).all()) and list(last.output(0).get_shape()) == [1, tokens, heads * _HEAD_WIDTH])
    if quantised is None:
        raise _OtherFormError
    _levels(quantised)
    return quantised, last


def _replace_one(layer: _Layer, create: Any, floats: str) -> None:
    ops, levels = ov.opset13, _levels(layer.output)
    tables = [layer.padding.astype(np.float32), layer.order.astype(np.int32), layer.bias.astype(np.float32)]
    if layer.masks is not None:
        kinds, masks = _kinds(layer.masks)
        tables += [kinds, masks.astype(np.float32)]
    attributes = {
        "query_per_unit": layer.query.per_unit,
        "query_zero": layer.query.zero,
        "key_per_unit": layer.key.per_unit,
        "key_zero": layer.key.zero,
        "output_per_unit": levels.per_unit,
        "output_zero": levels.zero,
        "score_per_level": layer.score_per_level,
    }
    made = create(
        _OPERATION,
        [as_stored(layer.tokens, floats), *(ops.constant(np.ascontiguousarray(table)) for table in tables)],
        attributes,
    )
    ranges = [layer.output.input_value(index) for index in range(1, 5)]
    values = ops.fake_quantize(as_values(made, levels), *ranges, LARGEST + 1)
    values.set_friendly_name(layer.last.get_friendly_name())
    for target in layer.last.output(0).get_target_inputs():
        target.replace_source_output(values.output(0))


def _levels(node: Any) -> Levels:
    found = levels_of(node)
    if found is None:
        raise _OtherFormError
    return found


def _is_product(node: Any, *, transpose_b: bool) -> bool:
    if node.get_type_name() != "MatMul":
        return False
    given = node.get_attributes()
    return not given["transpose_a"] and given["transpose_b"] == transpose_b


def _need(holds: Any) -> None:
    if not holds:
        raise _OtherFormError
