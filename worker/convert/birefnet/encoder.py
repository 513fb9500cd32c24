"""Swin-T, the encoder of BiRefNet-lite, from one image to four maps.

Source: Liu et al., "Swin Transformer", arXiv 2103.14030. Tokens are `[1, size * size, channels]`, row-major.
"""

from __future__ import annotations

from openvino import opset13 as opset

from worker.convert.birefnet import windows
from worker.convert.birefnet.attention import window_attention
from worker.convert.birefnet.layout import DEPTHS, DIMS, HEADS
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

PATCH = 4
"""Side in pixels of the square that becomes one token."""


def encode(image: Node, scope: Scope) -> list[Node]:
    """Add the encoder and return its four feature maps.

    Args:
        image: `[1, 3, R, R]`, R a multiple of 16.
        scope: Weights of `bb`.

    Returns:
        `[1, 96, R/4, R/4]`, `[1, 192, R/8, R/8]`, `[1, 384, R/16, R/16]` and `[1, 768, R/32, R/32]`, odd sizes
        rounded up.
    """
    x = conv(image, *scope.conv("patch_embed.proj"), stride=PATCH, before=(0, 0))
    size = height_width(x)[0]
    x = layer_norm(_to_tokens(x), scope, "patch_embed.norm")
    features = []
    for stage, depth in enumerate(DEPTHS):
        layer = scope.at(f"layers.{stage}")
        mask = _mask(size)
        for index in range(depth):
            x = _block(x, layer.at(f"blocks.{index}"), size, HEADS[stage], mask if index % 2 else None)
        features.append(_to_map(layer_norm(x, scope, f"norm{stage}"), size))
        if stage + 1 < len(DIMS):
            x = _downsample(x, layer.at("downsample"), size)
            size = (size + 1) // 2
    return features


def _mask(size: int) -> Node:
    """Return the mask of shifted windows `[windows, 1, 49, 49]`, a gather that is folded when the graph is compiled.

    Stored in full, the masks would take 18 MB of the file for 1024, although they repeat four patterns of 10 kB.
    """
    return opset.gather(constant(windows.region_masks()), constant(windows.window_kinds(size)), integer(0))


def _to_tokens(x: Node) -> Node:
    channels = x.output(0).get_shape()[1]
    return transpose(reshape(x, 1, channels, -1), 0, 2, 1)


def _to_map(x: Node, size: int) -> Node:
    return reshape(transpose(x, 0, 2, 1), 1, -1, size, size)


def _block(x: Node, scope: Scope, size: int, heads: int, mask: Node | None) -> Node:
    x = opset.add(x, window_attention(layer_norm(x, scope, "norm1"), scope.at("attn"), size, heads, mask))
    hidden = opset.gelu(linear(layer_norm(x, scope, "norm2"), *scope.conv("mlp.fc1")), "erf")
    return opset.add(x, linear(hidden, *scope.conv("mlp.fc2")))


def _downsample(x: Node, scope: Scope, size: int) -> Node:
    """Concatenate the tokens of each 2x2 cell, row offset first, and halve their channels.

    An odd grid is padded with a row and a column of zeros.
    """
    channels = x.output(0).get_shape()[2]
    half = (size + 1) // 2
    x = reshape(x, 1, size, size, channels)
    if size % 2:
        x = opset.pad(x, integers([0, 0, 0, 0]), integers([0, 1, 1, 0]), "constant")
    cells = transpose(reshape(x, 1, half, 2, half, 2, channels), 0, 1, 3, 4, 2, 5)
    joined = reshape(cells, 1, half * half, 4 * channels)
    return linear(layer_norm(joined, scope, "norm"), scope.array("reduction.weight"))
