"""Shifted-window attention of the encoder.

Windows are made in one of three ways with equal results: with the published pad, roll and reshapes; with one constant
gather in each direction (`WINDOW_GATHER`); or with the gathers after the qkv product and before the output projection
(`REAL_TOKENS`), so that no product is computed for padding. A padded token is zero, so its query, key and value equal
the bias, which is appended as one more row. It is appended behind the product: NNCF leaves a product in float whose
input is joined with a constant.
"""

from __future__ import annotations

import math

import numpy as np
from openvino import opset13 as opset

from worker.convert.birefnet import windows
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
from worker.convert.birefnet.windows import Grid

Heads = tuple[Node, Node, Node]
"""Query, key and value, each `[windows, heads, area, width of a head]`."""

EXPANDED_BYTES = 1 << 20
"""A position bias that is larger stays a table in the file, and is expanded when the graph is compiled: those of Swin-L
take 46.8 MB, their tables 1.2 MB. NNCF would quantise the table, so the small ones of Swin-T are stored expanded."""


def window_attention(x: Node, scope: Scope, grid: Grid, heads: int, mask: Node | None) -> Node:
    """Add attention inside windows, with qkv and output projection.

    Args:
        x: Tokens `[1, height * width, channels]`.
        scope: Weights of `attn`.
        grid: Grid of the tokens.
        heads: Number of attention heads.
        mask: `[windows, 1, area, area]` for shifted windows, None for unshifted ones.
    """
    shifted = mask is not None
    qkv, projection = scope.conv("qkv"), scope.conv("proj")
    if scope.uses(Rewrite.REAL_TOKENS):
        weights, bias = qkv
        tokens = concat([linear(x, weights, bias), constant(bias.reshape(1, 1, -1))])
        heads_of = _gathered_heads(tokens, grid.token_order(shifted=shifted), heads)
        mixed = _attend(heads_of, scope, mask)
        return linear(_gathered_tokens(mixed, grid.window_order(shifted=shifted)), *projection)
    gathers = scope.uses(Rewrite.WINDOW_GATHER)
    y = linear(_to_windows(x, grid, shifted) if gathers else _cut(x, grid, shifted), *qkv)
    y = linear(_join_heads(_attend(_split_heads(y, heads), scope, mask)), *projection)
    return _to_tokens(y, grid, shifted) if gathers else _join(y, grid, shifted)


def _attend(heads_of: Heads, scope: Scope, mask: Node | None) -> Node:
    """Attend within each window: query, key, value to their mixture, all `[windows, heads, area, width]`."""
    query, key, value = heads_of
    width = int(query.output(0).get_shape()[3])
    query = opset.multiply(query, constant(np.full(1, 1 / math.sqrt(width), np.float32)))
    scores = opset.add(opset.matmul(query, key, False, True), _position_bias(scope))
    if mask is not None:
        scores = opset.add(scores, mask)
    return opset.matmul(opset.softmax(scores, -1), value, False, False)


def _position_bias(scope: Scope) -> Node:
    """Return the relative position bias `[1, heads, area, area]`."""
    table, window = scope.array("relative_position_bias_table"), scope.backbone.window
    heads, area = table.shape[1], window**2
    if heads * area**2 * table.itemsize <= EXPANDED_BYTES:
        return constant(windows.position_bias(table, window))
    index = windows.position_index(window).astype(np.int32)
    return reshape(transpose(opset.gather(constant(table), constant(index), integer(0)), 2, 0, 1), 1, heads, area, area)


def _split_heads(qkv: Node, heads: int) -> Heads:
    """Split `[windows, area, 3 * channels]` into query, key and value, as published."""
    count, area, triple = (int(side) for side in qkv.output(0).get_shape())
    parts = transpose(reshape(qkv, count, area, 3, heads, triple // 3 // heads), 2, 0, 3, 1, 4)
    query, key, value = (opset.squeeze(part, integers([0])) for part in opset.split(parts, integer(0), 3).outputs())
    return query, key, value


def _join_heads(mixed: Node) -> Node:
    """Join the heads `[windows, heads, area, width]` to `[windows, area, channels]`, as published."""
    count, heads, area, width = (int(side) for side in mixed.output(0).get_shape())
    return reshape(transpose(mixed, 0, 2, 1, 3), count, area, heads * width)


def _gathered_heads(qkv: Node, order: windows.Indices, heads: int) -> Heads:
    """Gather query, key and value of tokens `[1, tokens, 3 * channels]` in the order of the windows.

    Viewed as rows of one head each, a token has `heads` rows of its query, then of its key, then of its value. One
    gather for each selects the part, forms the windows and puts the heads first at once, so that nothing is copied to
    split or transpose. The sum of its indices is a constant again when the graph is compiled; the file holds its terms.
    """
    width = int(qkv.output(0).get_shape()[2]) // 3 // heads
    rows = reshape(qkv, -1, width)
    first_rows = constant((order * 3 * heads)[:, None])  # [windows, 1, area]
    own = np.arange(heads, dtype=np.int32)[None, :, None]
    query, key, value = (
        opset.gather(rows, opset.add(first_rows, constant(own + part * heads)), integer(0)) for part in range(3)
    )
    return query, key, value


def _gathered_tokens(mixed: Node, places: windows.Indices) -> Node:
    """Gather tokens `[1, tokens, channels]` from windows `[windows, heads, area, width]`, without their padding.

    The inverse of `_gathered_heads`, with one gather of rows of one head each.
    """
    _, heads, area, width = (int(side) for side in mixed.output(0).get_shape())
    window, position = np.divmod(places, np.int32(area))
    first_rows = constant((window * heads * area + position)[:, None])  # [tokens, 1]
    own = constant(np.arange(heads, dtype=np.int32)[None] * area)
    return reshape(
        opset.gather(reshape(mixed, -1, width), opset.add(first_rows, own), integer(0)), 1, len(places), heads * width
    )


def _with_zero(x: Node) -> Node:
    """Append a zero token, to which the order of tokens points for padding."""
    channels = x.output(0).get_shape()[2]
    return concat([x, constant(np.zeros((1, 1, channels), np.float32))])


def _to_windows(x: Node, grid: Grid, shifted: bool) -> Node:
    """Convert tokens to windows `[windows, area, channels]` by one gather."""
    order = constant(grid.token_order(shifted=shifted))
    return opset.squeeze(opset.gather(_with_zero(x), order, integer(1)), integers([0]))


def _to_tokens(y: Node, grid: Grid, shifted: bool) -> Node:
    """Convert windows `[windows, area, channels]` to tokens by one gather, which drops the padding."""
    channels = y.output(0).get_shape()[2]
    places = constant(grid.window_order(shifted=shifted))
    return opset.gather(reshape(y, 1, -1, channels), places, integer(1))


def _cut(x: Node, grid: Grid, shifted: bool) -> Node:
    """Convert tokens to windows `[windows, area, channels]` as published: pad, roll, partition."""
    channels, window = x.output(0).get_shape()[2], grid.window
    (height, width), (rows, columns) = grid.padded, grid.windows
    x = reshape(x, 1, grid.height, grid.width, channels)
    if (height, width) != (grid.height, grid.width):
        missing = [0, height - grid.height, width - grid.width, 0]
        x = opset.pad(x, integers([0, 0, 0, 0]), integers(missing), "constant")
    if shifted:
        x = opset.roll(x, integers([-grid.shift, -grid.shift]), integers([1, 2]))
    tiles = transpose(reshape(x, 1, rows, window, columns, window, channels), 0, 1, 3, 2, 4, 5)
    return reshape(tiles, rows * columns, window * window, channels)


def _join(y: Node, grid: Grid, shifted: bool) -> Node:
    """Convert windows to tokens as published, the inverse of `_cut`."""
    channels, window = y.output(0).get_shape()[2], grid.window
    (height, width), (rows, columns) = grid.padded, grid.windows
    tiles = transpose(reshape(y, 1, rows, columns, window, window, channels), 0, 1, 3, 2, 4, 5)
    x = reshape(tiles, 1, height, width, channels)
    if shifted:
        x = opset.roll(x, integers([grid.shift, grid.shift]), integers([1, 2]))
    if (height, width) != (grid.height, grid.width):
        x = crop(x, [0, 0], [grid.height, grid.width], [1, 2])
    return reshape(x, 1, grid.tokens, channels)
