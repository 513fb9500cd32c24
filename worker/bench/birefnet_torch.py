"""BiRefNet-lite in eager PyTorch: the baseline of `worker bench model` and an independent check of the OpenVINO graph.

    state dict (published names) -> weights() -> forward(weights, image) -> logits

Written from the published description. It shares no code with `worker.convert.birefnet`, so a comparison of the two
reveals an error in either. Importing it imports PyTorch, which maskmill itself does not need: only a benchmark process
and a test do. It does not need torchvision: the deformable convolution samples with `grid_sample`.

Sources: Zheng et al., arXiv 2401.03407; Liu et al. (Swin), arXiv 2103.14030; Zhu et al. (deformable v2),
arXiv 1811.11168; Chen et al. (parallel branches), arXiv 1706.05587.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

# By name, because PyTorch is not a dependency and type checks must pass without it.
torch: Any = importlib.import_module("torch")
F: Any = torch.nn.functional

Tensor = Any
DeformConv = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(map, offsets, modulator, weight) -> map."""

DEPTHS = (2, 2, 6, 2)
HEADS = (3, 6, 12, 24)
WINDOW = 7
SHIFT = WINDOW // 2
DEFORMABLE = ("aspp1", "aspp_deforms.0", "aspp_deforms.1", "aspp_deforms.2")


def deform_conv(x: Tensor, offsets: Tensor, modulator: Tensor, weight: Tensor) -> Tensor:
    """Apply a modulated deformable convolution, stride 1, padding k // 2: sample all taps, then one matrix product.

    Args:
        x: `[n, c, h, w]`.
        offsets: `[n, 2 * k * k, h, w]`, pairs (dy, dx) in pixels per tap, taps in row-major order.
        modulator: `[n, k * k, h, w]`.
        weight: `[out, c, k, k]`.

    Returns:
        `[n, out, h, w]`.
    """
    count, channels, height, width = x.shape
    kernel = int(weight.shape[-1])
    taps = torch.arange(kernel, dtype=x.dtype) - kernel // 2
    offsets = offsets.reshape(count, kernel * kernel, 2, height, width)
    rows = torch.arange(height, dtype=x.dtype)[:, None] + taps.repeat_interleave(kernel)[:, None, None]
    cols = torch.arange(width, dtype=x.dtype)[None, :] + taps.repeat(kernel)[:, None, None]
    # Pixel centres on the -1..1 scale of grid_sample without aligned corners: (2 * p + 1) / side - 1.
    across = (2 * (cols + offsets[:, :, 1]) + 1) / width - 1
    down = (2 * (rows + offsets[:, :, 0]) + 1) / height - 1
    grid = torch.stack([across, down], -1).reshape(count, kernel * kernel * height, width, 2)
    sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.reshape(count, channels, kernel * kernel, height, width) * modulator[:, None]
    columns = sampled.reshape(count, channels * kernel * kernel, height * width)
    return (weight.reshape(1, weight.shape[0], -1) @ columns).reshape(count, -1, height, width)


def weights(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert a state dict of NumPy arrays to tensors, by the same names."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def forward(
    state: Mapping[str, Tensor],
    image: Tensor,
    *,
    deform: DeformConv = deform_conv,
    maps: MutableMapping[str, Tensor] | None = None,
) -> Tensor:
    """Compute the logits of pictures.

    Args:
        state: tensors by published name; those used only in training may be missing.
        image: `[n, 3, R, R]` float32, normalised; R a multiple of 32.
        deform: the deformable convolution to use.
        maps: if given, receives the feature maps `bb.0` .. `bb.3` (half-size pass), `squeeze` and `decoder_block4` ..
            `decoder_block1` before their gates.

    Returns:
        `[n, 1, R, R]` float32.
    """
    keep: MutableMapping[str, Tensor] = {} if maps is None else maps
    model = _Scope(state, deform)
    encoder, decoder = model.at("bb"), model.at("decoder")
    half = _encoder(encoder, _resize(image, _half(image)))
    keep.update({f"bb.{index}": feature for index, feature in enumerate(half)})
    whole = _encoder(encoder, image)
    x1, x2, x3, x4 = (torch.cat([one, _resize(other, one)], 1) for one, other in zip(whole, half, strict=True))
    x4 = torch.cat([_resize(x1, x4), _resize(x2, x4), _resize(x3, x4), x4], 1)
    x4 = keep["squeeze"] = _decoder_block(model.at("squeeze_module.0"), x4)

    p = _gated(decoder, 4, _level(decoder, 4, x4, _patches(decoder, 5, image, x4), keep))
    for level, lateral in ((3, x3), (2, x2), (1, x1)):
        p = _resize(p, lateral) + decoder.conv(f"lateral_block{level + 1}.conv", lateral)
        p = _level(decoder, level, p, _patches(decoder, level + 1, image, p), keep)
        if level > 1:
            p = _gated(decoder, level, p)
    p = torch.cat([_resize(p, image), _patches(decoder, 1, image, image)], 1)
    return decoder.conv("conv_out1.0", p)


@dataclass(frozen=True)
class _Scope:
    """The tensors below one prefix, and the layers built from them."""

    state: Mapping[str, Tensor]
    deform: DeformConv
    prefix: str = ""

    def at(self, name: str) -> _Scope:
        return _Scope(self.state, self.deform, f"{self.prefix}{name}.")

    def get(self, name: str) -> Tensor:
        return self.state.get(self.prefix + name)

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.get(f"{name}.weight")
        return F.conv2d(x, weight, self.get(f"{name}.bias"), padding=int(weight.shape[-1]) // 2)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance = self.get(f"{name}.running_mean"), self.get(f"{name}.running_var")
        return F.batch_norm(x, mean, variance, self.get(f"{name}.weight"), self.get(f"{name}.bias"), eps=1e-5)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (int(x.shape[-1]),), self.get(f"{name}.weight"), self.get(f"{name}.bias"), 1e-5)


def _half(image: Tensor) -> tuple[int, int]:
    return int(image.shape[2]) // 2, int(image.shape[3]) // 2


def _resize(x: Tensor, like: Tensor | tuple[int, int]) -> Tensor:
    size = like if isinstance(like, tuple) else (int(like.shape[2]), int(like.shape[3]))
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _encoder(bb: _Scope, image: Tensor) -> list[Tensor]:
    """Run Swin-T; return four maps at 1/4 to 1/32 of the size."""
    embed = bb.at("patch_embed")
    x = F.conv2d(image, embed.get("proj.weight"), embed.get("proj.bias"), stride=4).permute(0, 2, 3, 1)
    x = embed.layer_norm("norm", x)
    maps = []
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        layer = bb.at(f"layers.{stage}")
        mask = _region_mask(int(x.shape[1]), int(x.shape[2]))
        for index in range(depth):
            x = _block(layer.at(f"blocks.{index}"), x, heads, mask if index % 2 else None)
        maps.append(bb.layer_norm(f"norm{stage}", x).permute(0, 3, 1, 2))
        if stage + 1 < len(DEPTHS):
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))  # odd where R is not a multiple of 64
            cells = [x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)]
            x = layer.at("downsample").layer_norm("norm", torch.cat(cells, -1))
            x = layer.linear("downsample.reduction", x)
    return maps


def _block(block: _Scope, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Apply one Swin block to `[n, h, w, c]`; shift the windows if there is a mask."""
    _, height, width, _ = x.shape
    y = F.pad(block.layer_norm("norm1", x), (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
    shift = 0 if mask is None else SHIFT
    y = torch.roll(y, (-shift, -shift), (1, 2)) if shift else y
    y = _attention(block.at("attn"), y, heads, mask)
    y = torch.roll(y, (shift, shift), (1, 2)) if shift else y
    x = x + y[:, :height, :width]
    return x + block.linear("mlp.fc2", F.gelu(block.linear("mlp.fc1", block.layer_norm("norm2", x))))


def _attention(attn: _Scope, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    count, height, width, channels = (int(side) for side in x.shape)
    windows = _windows(x)
    qkv = attn.linear("qkv", windows).reshape(len(windows), -1, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    bias = attn.get("relative_position_bias_table")[_position_index().reshape(-1)]
    bias = bias.reshape(WINDOW**2, WINDOW**2, heads).permute(2, 0, 1)[None]
    if mask is not None:
        bias = bias + mask.repeat(count, 1, 1)[:, None]
    y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=bias)
    y = attn.linear("proj", y.transpose(1, 2).reshape(len(windows), -1, channels))
    y = y.reshape(count, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
    return y.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, channels)


def _windows(x: Tensor) -> Tensor:
    """Cut `[n, h, w, c]` into `[windows, 49, c]`."""
    count, height, width, channels = (int(side) for side in x.shape)
    x = x.reshape(count, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW**2, channels)


@functools.cache
def _region_mask(height: int, width: int) -> Tensor:
    """Return `[windows, 49, 49]`: minus infinity between regions that share a window only because of the shift."""
    regions = torch.zeros(1, height + -height % WINDOW, width + -width % WINDOW, 1)
    bands = (slice(0, -WINDOW), slice(-WINDOW, -SHIFT), slice(-SHIFT, None))
    for i, rows in enumerate(bands):
        for j, cols in enumerate(bands):
            regions[:, rows, cols] = 3 * i + j
    ids = _windows(regions)[:, :, 0]
    return torch.zeros(len(ids), WINDOW**2, WINDOW**2).masked_fill(ids[:, :, None] != ids[:, None, :], float("-inf"))


@functools.cache
def _position_index() -> Tensor:
    places = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    delta = places[:, :, None] - places[:, None, :] + WINDOW - 1
    return delta[0] * (2 * WINDOW - 1) + delta[1]


def _decoder_block(block: _Scope, x: Tensor) -> Tensor:
    x = F.relu(block.batch_norm("bn_in", block.conv("conv_in", x)))
    return block.batch_norm("bn_out", block.conv("conv_out", _aspp(block.at("dec_att"), x)))


def _aspp(aspp: _Scope, x: Tensor) -> Tensor:
    branches = [_branch(aspp.at(name), x) for name in DEFORMABLE]
    pooled = aspp.conv("global_avg_pool.1", x.mean((2, 3), keepdim=True))
    pooled = F.relu(aspp.batch_norm("global_avg_pool.2", pooled))
    branches.append(pooled.expand(-1, -1, *x.shape[2:]))
    return F.relu(aspp.batch_norm("bn1", aspp.conv("conv1", torch.cat(branches, 1))))


def _branch(branch: _Scope, x: Tensor) -> Tensor:
    conv = branch.at("atrous_conv")
    modulator = 2 * torch.sigmoid(conv.conv("modulator_conv", x))
    y = branch.deform(x, conv.conv("offset_conv", x), modulator, conv.get("regular_conv.weight"))
    return F.relu(branch.batch_norm("bn", y))


def _patches(decoder: _Scope, level: int, image: Tensor, like: Tensor) -> Tensor:
    """Stack tiles of the image of the size of a map (colour, tile row, tile column) and apply `ipt_blk{level}`."""
    height, width = int(like.shape[2]), int(like.shape[3])
    count, colours, rows, cols = (int(side) for side in image.shape)
    tiles = image.reshape(count, colours, rows // height, height, cols // width, width)
    tiles = tiles.permute(0, 1, 2, 4, 3, 5).reshape(count, -1, height, width)
    block = decoder.at(f"ipt_blk{level}")
    return block.conv("conv_out", block.conv("conv1", tiles))


def _level(decoder: _Scope, level: int, p: Tensor, patches: Tensor, keep: MutableMapping[str, Tensor]) -> Tensor:
    name = f"decoder_block{level}"
    keep[name] = p = _decoder_block(decoder.at(name), torch.cat([p, patches], 1))
    return p


def _gated(decoder: _Scope, level: int, p: Tensor) -> Tensor:
    hidden = decoder.conv(f"gdt_convs_{level}.0", p)
    hidden = F.relu(decoder.batch_norm(f"gdt_convs_{level}.1", hidden))
    return p * torch.sigmoid(decoder.conv(f"gdt_convs_attn_{level}.0", hidden))
