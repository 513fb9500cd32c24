"""The image branch `ipt_blk1`, which works on the full-size image and has by far the largest maps of the network.

Its two 3x3 convolutions have no activation between them. One 5x5 convolution therefore equals them wherever the second
reads no zero padding, which is everywhere except on the outermost ring of pixels. The ring is computed from strips
three pixels deep with the two published convolutions, and concatenated around the inner part.
"""

from __future__ import annotations

from worker.convert.birefnet.ops import Node, Scope, concat, conv, crop, height_width, resize
from worker.convert.birefnet.rewrites import Array, Rewrite, compose, then_pointwise

STRIP = 3
"""Depth in pixels that an outermost row or column depends on: two 3x3 convolutions reach two pixels inwards."""

Pair = tuple[Array, Array, Array, Array]
"""Weights and bias of the first convolution, then of the second."""


def image_logits(image: Node, scope: Scope, pointwise: Array | None, bias: Array | None) -> Node:
    """Add `ipt_blk1` to the image, followed by a 1x1 convolution if one is given.

    Args:
        image: `[1, 3, H, W]`.
        scope: Weights of `decoder`.
        pointwise: `[1, channels, 1, 1]` or None.
        bias: Bias of that convolution, `[1]`.

    Returns:
        `[1, 1, H, W]`, or `[1, channels, H, W]` without the 1x1 convolution.
    """
    if not scope.uses(Rewrite.SAME_SIZE):
        image = resize(image, *height_width(image))
    block = scope.at("ipt_blk1")
    second = block.conv("conv_out")
    if pointwise is not None and bias is not None:
        weight, moved = then_pointwise(*second, pointwise)
        second = (weight, moved + bias)
    pair = (*block.conv("conv1"), *second)
    return _collapsed(image, pair) if scope.uses(Rewrite.INPUT_PATCH) else _both(image, pair)


def _both(x: Node, pair: Pair, before: tuple[int, int] = (1, 1), after: tuple[int, int] = (1, 1)) -> Node:
    """Add the two convolutions as published; a strip is not padded along the line where it was cut from the image."""
    first, first_bias, second, second_bias = pair
    hidden = conv(x, first, first_bias, before=before, after=after)
    return conv(hidden, second, second_bias, before=before, after=after)


def _collapsed(image: Node, pair: Pair) -> Node:
    """Add one 5x5 convolution for the inner part and the published pair for the outermost ring."""
    height, width = height_width(image)
    inside = conv(image, *compose(*pair), before=(1, 1))
    top = _both(crop(image, [0], [STRIP], [2]), pair, (1, 1), (0, 1))
    bottom = _both(crop(image, [height - STRIP], [height], [2]), pair, (0, 1), (1, 1))
    left = _both(crop(image, [0], [STRIP], [3]), pair, (1, 1), (1, 0))
    right = _both(crop(image, [width - STRIP], [width], [3]), pair, (1, 0), (1, 1))
    left, right = (crop(side, [1], [height - 1], [2]) for side in (left, right))
    return concat([top, concat([left, inside, right], 3), bottom], 2)
