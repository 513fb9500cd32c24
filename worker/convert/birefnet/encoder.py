"""The Swin encoder of BiRefNet, from one image to four maps.

Source: Liu et al., "Swin Transformer", arXiv 2103.14030. Tokens are `[1, height * width, channels]`, row-major.
"""

from __future__ import annotations

from openvino import opset13 as opset

from worker.convert.birefnet.attention import window_attention
from worker.convert.birefnet.ops import (
    Node,
    Scope,
    constant,
    conv,
    height_width,
    integer,
    integers,
    layer_norm,
    linear,
    reshape,
    transpose,
)
from worker.convert.birefnet.windows import Grid, region_masks

PATCH = 4
"""Side in pixels of the square that becomes one token."""


def encode(image: Node, scope: Scope) -> list[Node]:
    """Add the encoder and return its four feature maps.

    Args:
        image: `[1, 3, H, W]`, multiples of 4.
        scope: Weights of `bb`.

    Returns:
        Maps at a 4th, an 8th, a 16th and a 32nd of the height and width, odd sides rounded up, each with twice the
        channels of the one before it.
    """
    x = conv(image, *scope.conv("patch_embed.proj"), stride=PATCH, before=(0, 0))
    grid = Grid(*height_width(x), scope.backbone.window)
    x = layer_norm(_to_tokens(x), scope, "patch_embed.norm")
    features = []
    for stage, (depth, heads) in enumerate(zip(scope.backbone.depths, scope.backbone.heads, strict=True)):
        layer = scope.at(f"layers.{stage}")
        mask = _mask(grid)
        for index in range(depth):
            x = _block(x, layer.at(f"blocks.{index}"), grid, heads, mask if index % 2 else None)
        features.append(_to_map(layer_norm(x, scope, f"norm{stage}"), grid))
        if stage + 1 < len(scope.backbone.depths):
            x = _downsample(x, layer.at("downsample"), grid)
            grid = grid.halved
    return features


def _mask(grid: Grid) -> Node:
    """Return the mask of shifted windows `[windows, 1, area, area]`, a gather that is folded at compile time.

    Stored in full, the masks of Swin-T would take 18 MB of the file for 1024, although they repeat four patterns of
    10 kB.
    """
    return opset.gather(constant(region_masks(grid.window)), constant(grid.window_kinds()), integer(0))


def _to_tokens(x: Node) -> Node:
    channels = x.output(0).get_shape()[1]
    return transpose(reshape(x, 1, channels, -1), 0, 2, 1)


def _to_map(x: Node, grid: Grid) -> Node:
    return reshape(transpose(x, 0, 2, 1), 1, -1, grid.height, grid.width)


def _block(x: Node, scope: Scope, grid: Grid, heads: int, mask: Node | None) -> Node:
    x = opset.add(x, window_attention(layer_norm(x, scope, "norm1"), scope.at("attn"), grid, heads, mask))
    hidden = opset.gelu(linear(layer_norm(x, scope, "norm2"), *scope.conv("mlp.fc1")), "erf")
    return opset.add(x, linear(hidden, *scope.conv("mlp.fc2")))


def _downsample(x: Node, scope: Scope, grid: Grid) -> Node:
    """Concatenate the tokens of each 2x2 cell, row offset first, and halve their channels.

    An odd height is padded with a row of zeros, an odd width with a column.
    """
    channels = x.output(0).get_shape()[2]
    half = grid.halved
    x = reshape(x, 1, grid.height, grid.width, channels)
    if grid.height % 2 or grid.width % 2:
        x = opset.pad(x, integers([0, 0, 0, 0]), integers([0, grid.height % 2, grid.width % 2, 0]), "constant")
    cells = transpose(reshape(x, 1, half.height, 2, half.width, 2, channels), 0, 1, 3, 4, 2, 5)
    joined = reshape(cells, 1, half.tokens, 4 * channels)
    return linear(layer_norm(joined, scope, "norm"), scope.array("reduction.weight"))
