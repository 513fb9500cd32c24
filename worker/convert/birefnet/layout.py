"""Names and shapes of the published state dict of BiRefNet-lite, derived from the dimensions of the network.

`checkpoint` validates against these tables, and the parts of the network read their dimensions from here.
"""

from __future__ import annotations

from collections.abc import Iterator

Shape = tuple[int, ...]
Entry = tuple[str, Shape]

# Swin-T, Liu et al., arXiv 2103.14030.
DIMS = (96, 192, 384, 768)
DEPTHS = (2, 2, 6, 2)
HEADS = (3, 6, 12, 24)
WINDOW = 7
SHIFT = 3
MLP_RATIO = 4

CONTEXT = 2 * sum(DIMS)
"""Channels of the deepest features concatenated with the three shallower ones, in both scales."""
INNER = 64
"""Channels inside a decoder block."""
BRANCH = 256
"""Channels of one branch of the deformable ASPP."""
GATE = 16
"""Channels of the gate's hidden convolution."""

BRANCHES = (("aspp1", 1), ("aspp_deforms.0", 1), ("aspp_deforms.1", 3), ("aspp_deforms.2", 7))
"""Deformable branches with their kernel sizes, in the order of concatenation; the pooled branch follows them."""

PATCH_BLOCKS = {5: (3072, 192), 4: (768, 192), 3: (192, 96), 2: (48, 48), 1: (3, 24)}
"""Input and output channels of `ipt_blk{n}`."""

DECODER_BLOCKS = {4: (1728, 768), 3: (960, 384), 2: (480, 192), 1: (240, 96)}
"""Input and output channels of `decoder_block{n}`."""

LATERALS = {4: 768, 3: 384, 2: 192}
"""Channels of `lateral_block{n}`. Gates, and heads that only training uses, exist at the same levels."""


def required() -> dict[str, Shape]:
    """Return the shape of every array that the network reads, by its published name."""
    return dict(_required())


def optional() -> dict[str, Shape]:
    """Return the shapes of what a checkpoint may also hold: heads that only training uses, counters, index tables."""
    return dict(_optional())


def _required() -> Iterator[Entry]:
    yield from _encoder()
    yield from _decoder_block("squeeze_module.0", CONTEXT, DIMS[3] * 2)
    for level, (inputs, outputs) in PATCH_BLOCKS.items():
        yield from _conv(f"decoder.ipt_blk{level}.conv1", INNER, inputs, 3)
        yield from _conv(f"decoder.ipt_blk{level}.conv_out", outputs, INNER, 3)
    for level, (inputs, outputs) in DECODER_BLOCKS.items():
        yield from _decoder_block(f"decoder.decoder_block{level}", inputs, outputs)
    for level, channels in LATERALS.items():
        yield from _conv(f"decoder.lateral_block{level}.conv", channels, channels, 1)
        yield from _conv(f"decoder.gdt_convs_{level}.0", GATE, channels, 3)
        yield from _batch_norm(f"decoder.gdt_convs_{level}.1", GATE)
        yield from _conv(f"decoder.gdt_convs_attn_{level}.0", 1, GATE, 1)
    yield from _conv("decoder.conv_out1.0", 1, DECODER_BLOCKS[1][1] + PATCH_BLOCKS[1][1], 1)


def _optional() -> Iterator[Entry]:
    for level, channels in LATERALS.items():
        yield from _conv(f"decoder.conv_ms_spvn_{level}", 1, channels, 1)
        yield from _conv(f"decoder.gdt_convs_pred_{level}.0", 1, GATE, 1)
    for name, _ in _required():
        if name.endswith(".running_mean"):
            yield name.removesuffix("running_mean") + "num_batches_tracked", ()
        if name.endswith(".relative_position_bias_table"):
            yield name.removesuffix("bias_table") + "index", (WINDOW**2, WINDOW**2)


def _encoder() -> Iterator[Entry]:
    yield from _conv("bb.patch_embed.proj", DIMS[0], 3, 4)
    yield from _vectors("bb.patch_embed.norm", DIMS[0], "weight", "bias")
    for stage, (dim, depth, heads) in enumerate(zip(DIMS, DEPTHS, HEADS, strict=True)):
        for index in range(depth):
            yield from _swin_block(f"bb.layers.{stage}.blocks.{index}", dim, heads)
        yield from _vectors(f"bb.norm{stage}", dim, "weight", "bias")
        if stage + 1 < len(DIMS):
            yield f"bb.layers.{stage}.downsample.reduction.weight", (2 * dim, 4 * dim)
            yield from _vectors(f"bb.layers.{stage}.downsample.norm", 4 * dim, "weight", "bias")


def _swin_block(name: str, dim: int, heads: int) -> Iterator[Entry]:
    yield from _vectors(f"{name}.norm1", dim, "weight", "bias")
    yield f"{name}.attn.relative_position_bias_table", ((2 * WINDOW - 1) ** 2, heads)
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
