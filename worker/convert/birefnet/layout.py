"""Names and shapes of the published state dicts of BiRefNet, derived from the four numbers of the backbone.

`checkpoint` validates against these tables, and the parts of the network read their dimensions from here. Every
published checkpoint has one of two backbones; names and options of the network are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Entry = tuple[str, Shape]

MLP_RATIO = 4

INNER = 64
"""Channels inside a decoder block."""
BRANCH = 256
"""Channels of one branch of the deformable ASPP."""
GATE = 16
"""Channels of the gate's hidden convolution."""

BRANCHES = (("aspp1", 1), ("aspp_deforms.0", 1), ("aspp_deforms.1", 3), ("aspp_deforms.2", 7))
"""Deformable branches with their kernel sizes, in the order of concatenation; the pooled branch follows them."""

TILE_GRIDS = {5: 32, 4: 16, 3: 8, 2: 4, 1: 1}
"""Tiles per side of the image, by level: `ipt_blk{n}` sees `3 * grid**2` channels at every input size."""


@dataclass(frozen=True)
class Backbone:
    """A Swin transformer (Liu et al., arXiv 2103.14030), and the dimensions of the network that follow from it."""

    name: str
    width: int
    """Channels of stage 0; every further stage has twice as many."""
    depths: tuple[int, int, int, int]
    """Blocks per stage."""
    heads: tuple[int, int, int, int]
    """Attention heads per stage."""
    window: int
    """Side of an attention window, in tokens."""

    @property
    def shift(self) -> int:
        """Tokens by which the windows of odd blocks are shifted."""
        return self.window // 2

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Channels per stage."""
        return self.width, 2 * self.width, 4 * self.width, 8 * self.width

    @property
    def context(self) -> int:
        """Channels of the deepest features concatenated with the three shallower ones, in both scales."""
        return 2 * sum(self.dims)

    @property
    def patch_blocks(self) -> dict[int, tuple[int, int]]:
        """Input and output channels of `ipt_blk{n}`."""
        outputs = {5: 2 * self.width, 4: 2 * self.width, 3: self.width, 2: self.width // 2, 1: self.width // 4}
        return {level: (3 * grid**2, outputs[level]) for level, grid in TILE_GRIDS.items()}

    @property
    def decoder_blocks(self) -> dict[int, tuple[int, int]]:
        """Input and output channels of `decoder_block{n}`."""
        inputs = {4: 2 * self.dims[3], 3: self.dims[3], 2: self.dims[2], 1: self.dims[1]}
        outputs = {4: self.dims[3], 3: self.dims[2], 2: self.dims[1], 1: self.dims[0]}
        return {level: (inputs[level] + self.patch_blocks[level + 1][1], outputs[level]) for level in inputs}

    @property
    def laterals(self) -> dict[int, int]:
        """Channels of `lateral_block{n}`. Gates, and heads that only training uses, exist at the same levels."""
        return {4: self.dims[3], 3: self.dims[2], 2: self.dims[1]}


SWIN_T = Backbone("Swin-T", 96, (2, 2, 6, 2), (3, 6, 12, 24), 7)
"""Backbone of the lite checkpoints."""
SWIN_L = Backbone("Swin-L", 192, (2, 2, 18, 2), (6, 12, 24, 48), 12)
"""Backbone of all other published checkpoints."""

BACKBONES = (SWIN_T, SWIN_L)

_EMBEDDING = "bb.patch_embed.proj.weight"


def backbone_of(shapes: Mapping[str, Shape]) -> Backbone:
    """Tell the backbone from the width of the patch embedding; Swin-T if it is missing or not a published one.

    Strict validation follows, which then names what differs.
    """
    width = shapes.get(_EMBEDDING, (0,))[:1]
    return next((known for known in BACKBONES if width == (known.width,)), SWIN_T)


def required(backbone: Backbone = SWIN_T) -> dict[str, Shape]:
    """Return the shape of every array that the network reads, by its published name."""
    return dict(_required(backbone))


def optional(backbone: Backbone = SWIN_T) -> dict[str, Shape]:
    """Return the shapes of what a checkpoint may also hold: heads that only training uses, counters, index tables."""
    return dict(_optional(backbone))


def _required(backbone: Backbone) -> Iterator[Entry]:
    yield from _encoder(backbone)
    yield from _decoder_block("squeeze_module.0", backbone.context, backbone.dims[3] * 2)
    for level, (inputs, outputs) in backbone.patch_blocks.items():
        yield from _conv(f"decoder.ipt_blk{level}.conv1", INNER, inputs, 3)
        yield from _conv(f"decoder.ipt_blk{level}.conv_out", outputs, INNER, 3)
    for level, (inputs, outputs) in backbone.decoder_blocks.items():
        yield from _decoder_block(f"decoder.decoder_block{level}", inputs, outputs)
    for level, channels in backbone.laterals.items():
        yield from _conv(f"decoder.lateral_block{level}.conv", channels, channels, 1)
        yield from _conv(f"decoder.gdt_convs_{level}.0", GATE, channels, 3)
        yield from _batch_norm(f"decoder.gdt_convs_{level}.1", GATE)
        yield from _conv(f"decoder.gdt_convs_attn_{level}.0", 1, GATE, 1)
    yield from _conv("decoder.conv_out1.0", 1, backbone.decoder_blocks[1][1] + backbone.patch_blocks[1][1], 1)


def _optional(backbone: Backbone) -> Iterator[Entry]:
    for level, channels in backbone.laterals.items():
        yield from _conv(f"decoder.conv_ms_spvn_{level}", 1, channels, 1)
        yield from _conv(f"decoder.gdt_convs_pred_{level}.0", 1, GATE, 1)
    for name, _ in _required(backbone):
        if name.endswith(".running_mean"):
            yield name.removesuffix("running_mean") + "num_batches_tracked", ()
        if name.endswith(".relative_position_bias_table"):
            yield name.removesuffix("bias_table") + "index", (backbone.window**2, backbone.window**2)


def _encoder(backbone: Backbone) -> Iterator[Entry]:
    dims, window = backbone.dims, backbone.window
    yield from _conv("bb.patch_embed.proj", dims[0], 3, 4)
    yield from _vectors("bb.patch_embed.norm", dims[0], "weight", "bias")
    for stage, (dim, depth, heads) in enumerate(zip(dims, backbone.depths, backbone.heads, strict=True)):
        for index in range(depth):
            yield from _swin_block(f"bb.layers.{stage}.blocks.{index}", dim, heads, window)
        yield from _vectors(f"bb.norm{stage}", dim, "weight", "bias")
        if stage + 1 < len(dims):
            yield f"bb.layers.{stage}.downsample.reduction.weight", (2 * dim, 4 * dim)
            yield from _vectors(f"bb.layers.{stage}.downsample.norm", 4 * dim, "weight", "bias")


def _swin_block(name: str, dim: int, heads: int, window: int) -> Iterator[Entry]:
    yield from _vectors(f"{name}.norm1", dim, "weight", "bias")
    yield f"{name}.attn.relative_position_bias_table", ((2 * window - 1) ** 2, heads)
    yield from _linear(f"{name}.attn.qkv", 3 * dim, dim)
    yield from _linear(f"{name}.attn.proj", dim, dim)
    yield from _vectors(f"{name}.norm2", dim, "weight", "bias")
    yield from _linear(f"{name}.mlp.fc1", MLP_RATIO * dim, dim)
    yield from _linear(f"{name}.mlp.fc2", dim, MLP_RATIO * dim)


def _decoder_block(name: str, inputs: int, outputs: int) -> Iterator[Entry]:
    yield from _conv(f"{name}.conv_in", INNER, inputs, 3)
    yield from _batch_norm(f"{name}.bn_in", INNER)
    for branch, kernel in BRANCHES:
        conv = f"{name}.dec_att.{branch}.atrous_conv"
        yield from _conv(f"{conv}.offset_conv", 2 * kernel**2, INNER, kernel)
        yield from _conv(f"{conv}.modulator_conv", kernel**2, INNER, kernel)
        yield f"{conv}.regular_conv.weight", (BRANCH, INNER, kernel, kernel)
        yield from _batch_norm(f"{name}.dec_att.{branch}.bn", BRANCH)
    yield f"{name}.dec_att.global_avg_pool.1.weight", (BRANCH, INNER, 1, 1)
    yield from _batch_norm(f"{name}.dec_att.global_avg_pool.2", BRANCH)
    yield f"{name}.dec_att.conv1.weight", (INNER, BRANCH * (len(BRANCHES) + 1), 1, 1)
    yield from _batch_norm(f"{name}.dec_att.bn1", INNER)
    yield from _conv(f"{name}.conv_out", outputs, INNER, 3)
    yield from _batch_norm(f"{name}.bn_out", outputs)


def _vectors(name: str, size: int, *leaves: str) -> Iterator[Entry]:
    for leaf in leaves:
        yield f"{name}.{leaf}", (size,)


def _conv(name: str, outputs: int, inputs: int, kernel: int) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    yield f"{name}.bias", (outputs,)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _batch_norm(name: str, size: int) -> Iterator[Entry]:
    yield from _vectors(name, size, "weight", "bias", "running_mean", "running_var")
