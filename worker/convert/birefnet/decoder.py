"""The decoder of BiRefNet, from features of two scales and tiles of the image to logits.

Source: arXiv 2401.03407, section 3. Each level combines the output of the deeper level with the encoder's features and
with the image, which is cut into tiles that are stacked as channels.
"""

from __future__ import annotations

from openvino import opset13 as opset

from worker.convert.birefnet.aspp import decoder_block, inner_features
from worker.convert.birefnet.image_branch import image_logits
from worker.convert.birefnet.ops import (
    Node,
    Scope,
    concat,
    conv,
    height_width,
    named,
    normed_conv,
    reshape,
    resize,
    transpose,
)
from worker.convert.birefnet.rewrites import Rewrite, fold_scale, then_pointwise


def decode(image: Node, features: list[Node], context: Node, scope: Scope) -> Node:
    """Add the decoder and return the logits.

    Args:
        image: `[1, 3, H, W]`.
        features: Both scales concatenated, at a 4th, an 8th and a 16th of the size.
        context: Output of the squeeze block, at a 32nd.
        scope: Weights of `decoder`.

    Returns:
        `[1, 1, H, W]`.
    """
    x = _level(context, image, scope, 4)
    for level, lateral in ((3, features[2]), (2, features[1])):
        x = _level(_join(x, lateral, scope, level + 1), image, scope, level)
    x = _with_image(_join(x, features[0], scope, 2), image, scope, 2)
    return named(_logits(x, image, scope), "logits")


def _level(x: Node, image: Node, scope: Scope, level: int) -> Node:
    """Add one level: image tiles, decoder block and gate."""
    x = decoder_block(_with_image(x, image, scope, level + 1), scope.at(f"decoder_block{level}"))
    named(x, f"decoder_block{level}")
    hidden = opset.relu(normed_conv(x, scope, f"gdt_convs_{level}.0", f"gdt_convs_{level}.1"))
    return opset.multiply(x, opset.sigmoid(conv(hidden, *scope.conv(f"gdt_convs_attn_{level}.0"))))


def _join(x: Node, lateral: Node, scope: Scope, level: int) -> Node:
    """Enlarge the output of the deeper level and add the encoder's features after a 1x1 convolution."""
    return opset.add(resize(x, *height_width(lateral)), conv(lateral, *scope.conv(f"lateral_block{level}.conv")))


def _with_image(x: Node, image: Node, scope: Scope, level: int) -> Node:
    """Concatenate the map with the image tiles after `ipt_blk{level}`."""
    height, width = height_width(x)
    patches = tiles(image, height, width)
    if not scope.uses(Rewrite.SAME_SIZE):
        patches = resize(patches, height, width)
    block = scope.at(f"ipt_blk{level}")
    return concat([x, conv(conv(patches, *block.conv("conv1")), *block.conv("conv_out"))])


def tiles(image: Node, height: int, width: int) -> Node:
    """Cut the image into tiles of `height x width` pixels, stacked as channels: colour, tile row, tile column.

    `[1, 3, H, W]` to `[1, 3 * (H / height) * (W / width), height, width]`. Weights that were trained with another order
    are permuted when they are loaded: see `tile_order`.
    """
    channels, size = 3, height_width(image)
    rows, cols = size[0] // height, size[1] // width
    if rows == cols == 1:
        return image
    cut = transpose(reshape(image, channels, rows, height, cols, width), 0, 1, 3, 2, 4)
    return reshape(cut, 1, channels * rows * cols, height, width)


def _logits(x: Node, image: Node, scope: Scope) -> Node:
    """Add the last block at a 4th of the size, the image branch at full size, and the 1x1 convolution over both.

    There is no activation between the block's last convolution and the logits, and a 1x1 convolution commutes with the
    resize, whose weights add up to one. With `OUTPUT_CONV` the block therefore computes one channel of logits there,
    which is enlarged and added to the image branch.
    """
    block = scope.at("decoder_block1")
    channels = scope.backbone.decoder_blocks[1][1]
    weight, bias = scope.conv("conv_out1.0")
    size = height_width(image)
    if scope.uses(Rewrite.OUTPUT_CONV):
        kernel = fold_scale(*block.conv("conv_out"), *block.norm("bn_out"))
        low = conv(inner_features(x, block), *then_pointwise(*kernel, weight[:, :channels]))
        return opset.add(resize(low, *size), image_logits(image, scope, weight[:, channels:], bias))
    low = named(decoder_block(x, block), "decoder_block1")
    return conv(concat([resize(low, *size), image_logits(image, scope, None, None)]), weight, bias)
