"""Shifted-window attention of the encoder.

Windows are made in one of three ways with equal results: with the published pad, roll and reshapes; with one constant
gather in each direction (`WINDOW_GATHER`); or with the gathers after the qkv product and before the output projection
(`REAL_TOKENS`), so that no product is computed for padding. A padded token is zero, so its query, key and value equal
the bias. A row of zeros appended to the tokens gives the same result.
"""

from __future__ import annotations

import math

import numpy as np
from openvino import opset13 as opset

from worker.convert.birefnet import windows
from worker.convert.birefnet.layout import SHIFT, WINDOW
from worker.convert.birefnet.ops import (
    Node,
    Scope,
    concat,
    constant,
    crop,
    integer,
    integers,
    linear,
    reshape,
    transpose,
)
from worker.convert.birefnet.rewrites import Rewrite

Heads = tuple[Node, Node, Node]
"""Query, key and value, each `[windows, heads, 49, width of a head]`."""


def window_attention(x: Node, scope: Scope, size: int, heads: int, mask: Node | None) -> Node:
    """Add attention inside windows, with qkv and output projection.

    Args:
        x: Tokens `[1, size * size, channels]`.
        scope: Weights of `attn`.
        size: Side of the grid of tokens.
        heads: Number of attention heads.
        mask: `[windows, 1, 49, 49]` for shifted windows, None for unshifted ones.
    """
    shifted = mask is not None
    qkv, projection = scope.conv("qkv"), scope.conv("proj")
    if scope.uses(Rewrite.REAL_TOKENS):
        heads_of = _gathered_heads(linear(_with_zero(x), *qkv), windows.token_order(size, shifted=shifted), heads)
        return linear(_to_tokens(_attend(heads_of, scope, mask), size, shifted), *projection)
    gathers = scope.uses(Rewrite.WINDOW_GATHER)
    y = linear(_to_windows(x, size, shifted) if gathers else _cut(x, size, shifted), *qkv)
    y = linear(_attend(_split_heads(y, heads), scope, mask), *projection)
    return _to_tokens(y, size, shifted) if gathers else _join(y, size, shifted)


def _attend(heads_of: Heads, scope: Scope, mask: Node | None) -> Node:
    """Attend within each window: query, key and value `[windows, heads, 49, width]` to `[windows, 49, channels]`."""
    query, key, value = heads_of
    count, heads, area, width = (int(side) for side in query.output(0).get_shape())
    query = opset.multiply(query, constant(np.full(1, 1 / math.sqrt(width), np.float32)))
    bias = windows.position_bias(scope.array("relative_position_bias_table"))
    scores = opset.add(opset.matmul(query, key, False, True), constant(bias))
    if mask is not None:
        scores = opset.add(scores, mask)
    mixed = opset.matmul(opset.softmax(scores, -1), value, False, False)
    return reshape(transpose(mixed, 0, 2, 1, 3), count, area, heads * width)


def _split_heads(qkv: Node, heads: int) -> Heads:
    """Split `[windows, 49, 3 * channels]` into query, key and value, as published."""
    count, area, triple = (int(side) for side in qkv.output(0).get_shape())
    parts = transpose(reshape(qkv, count, area, 3, heads, triple // 3 // heads), 2, 0, 3, 1, 4)
    query, key, value = (opset.squeeze(part, integers([0])) for part in opset.split(parts, integer(0), 3).outputs())
    return query, key, value


def _gathered_heads(qkv: Node, order: windows.Indices, heads: int) -> Heads:
    """Gather query, key and value of tokens `[1, tokens, 3 * channels]` in the order of the windows.

    Viewed as rows of `channels`, a token's query, key and value are three consecutive rows. One gather for each selects
    the part and forms the windows at once, so no extra copy splits the three.
    """
    channels = int(qkv.output(0).get_shape()[2]) // 3
    rows = reshape(qkv, -1, channels)
    shape = (*order.shape, heads, channels // heads)
    gathered = (opset.gather(rows, constant(order * 3 + part), integer(0)) for part in range(3))
    query, key, value = (transpose(reshape(part, *shape), 0, 2, 1, 3) for part in gathered)
    return query, key, value


def _with_zero(x: Node) -> Node:
    """Append a zero token, to which the order of tokens points for padding."""
    channels = x.output(0).get_shape()[2]
    return concat([x, constant(np.zeros((1, 1, channels), np.float32))])


def _to_windows(x: Node, size: int, shifted: bool) -> Node:
    """Convert tokens to windows `[windows, 49, channels]` by one gather."""
    order = constant(windows.token_order(size, shifted=shifted))
    return opset.squeeze(opset.gather(_with_zero(x), order, integer(1)), integers([0]))


def _to_tokens(y: Node, size: int, shifted: bool) -> Node:
    """Convert windows `[windows, 49, channels]` to tokens by one gather, which drops the padding."""
    channels = y.output(0).get_shape()[2]
    places = constant(windows.window_order(size, shifted=shifted))
    return opset.gather(reshape(y, 1, -1, channels), places, integer(1))


def _cut(x: Node, size: int, shifted: bool) -> Node:
    """Convert tokens to windows `[windows, 49, channels]` as published: pad, roll, partition."""
    channels = x.output(0).get_shape()[2]
    side = windows.padded(size)
    count, missing = side // WINDOW, side - size
    x = reshape(x, 1, size, size, channels)
    if missing:
        x = opset.pad(x, integers([0, 0, 0, 0]), integers([0, missing, missing, 0]), "constant")
    if shifted:
        x = opset.roll(x, integers([-SHIFT, -SHIFT]), integers([1, 2]))
    tiles = transpose(reshape(x, 1, count, WINDOW, count, WINDOW, channels), 0, 1, 3, 2, 4, 5)
    return reshape(tiles, count * count, WINDOW * WINDOW, channels)


def _join(y: Node, size: int, shifted: bool) -> Node:
    """Convert windows to tokens as published, the inverse of `_cut`."""
    channels = y.output(0).get_shape()[2]
    side = windows.padded(size)
    count = side // WINDOW
    tiles = transpose(reshape(y, 1, count, count, WINDOW, WINDOW, channels), 0, 1, 3, 2, 4, 5)
    x = reshape(tiles, 1, side, side, channels)
    if shifted:
        x = opset.roll(x, integers([SHIFT, SHIFT]), integers([1, 2]))
    if side != size:
        x = crop(x, [0, 0], [size, size], [1, 2])
    return reshape(x, 1, size * size, channels)
