"""The network of `starter` in PyTorch, for training; `export` converts it to OpenVINO IR.

    image [3, R, R] ──> encoder, halved five times (16, 32, 64, 80, 112 channels) ──> context of the whole picture
          └ pixels of 2 x 2 ──┐                                                             │
    logits [1, R, R] <── 2 x 2 pixels <── decoder, doubled four times, with the encoder's features

It uses dense 3 x 3 convolutions and ReLU, which INT8 on CPUs runs best. The prediction has the resolution of the input:
the last layer predicts four values for each square of 2 x 2 pixels, and its features include these pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (16, 32, 64, 80, 112)
STRIDE = 32
"""The sides of the input must be multiples of this."""


def convolved(into: int, out: int, side: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias, followed by batch normalisation."""
    layer = nn.Conv2d(into, out, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out))


class Block(nn.Module):
    """Residual block of two 3 x 3 convolutions (He et al., CVPR 2016)."""

    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolved(into, out, stride=stride)
        self.second = convolved(out, out)
        self.around: nn.Module = nn.Identity()
        if stride > 1:
            self.around = nn.Sequential(nn.AvgPool2d(2), convolved(into, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, into, h, w]` to `[n, out, h / stride, w / stride]`."""
        inner = self.second(functional.relu(self.first(x)))
        return functional.relu(inner + self.around(x))


class Context(nn.Module):
    """Context of the whole picture: a 5 x 5 depthwise convolution, then channels weighted by their global means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = convolved(channels, channels, 5, groups=channels)
        self.mixed = convolved(channels, channels, 1)
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        x = functional.relu(x + self.mixed(functional.relu(self.wide(x))))
        return x * torch.sigmoid(self.weights(x))


class Up(nn.Module):
    """Decoder step: enlarge coarse features to twice their size and add the encoder's features."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.narrow = convolved(coarse, fine, 1)
        self.mixed = convolved(fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return features of the shape of `fine`."""
        up = functional.interpolate(self.narrow(coarse), scale_factor=2, mode="nearest")
        return functional.relu(self.mixed(functional.relu(up + fine)))


class Starter(nn.Module):
    """The whole network: normalised RGB f32 `[n, 3, R, R]` to logits `[n, 1, R, R]`."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = CHANNELS
        self.stem = nn.Sequential(convolved(3, c1, stride=2), nn.ReLU(), convolved(c1, c1), nn.ReLU())
        self.down2 = nn.Sequential(Block(c1, c2, 2), Block(c2, c2))
        self.down3 = nn.Sequential(Block(c2, c3, 2), Block(c3, c3))
        self.down4 = nn.Sequential(Block(c3, c4, 2), Block(c4, c4))
        self.down5 = nn.Sequential(Block(c4, c5, 2), Context(c5), Context(c5))
        self.up4, self.up3, self.up2, self.up1 = Up(c5, c4), Up(c4, c3), Up(c3, c2), Up(c2, c1)
        self.fine = nn.Sequential(convolved(c1 + 12, c1), nn.ReLU(), convolved(c1, c1), nn.ReLU())
        self.head = nn.Conv2d(c1, 4, 3, padding=1)
        self.coarse_heads = nn.ModuleList([nn.Conv2d(c, 1, 1) for c in (c4, c3, c2)])

    def forward(self, image: Tensor) -> Any:
        """Return logits; in training mode also a list of coarse logits at R / 16, R / 8 and R / 4."""
        f1 = self.stem(image)
        f2 = self.down2(f1)
        f3 = self.down3(f2)
        f4 = self.down4(f3)
        u4 = self.up4(self.down5(f4), f4)
        u3 = self.up3(u4, f3)
        u2 = self.up2(u3, f2)
        pixels = functional.pixel_unshuffle(image, 2)
        features = self.fine(torch.cat([self.up1(u2, f1), pixels], dim=1))
        logits = functional.pixel_shuffle(self.head(features), 2)
        if not self.training:
            return logits
        return logits, [head(u) for head, u in zip(self.coarse_heads, (u4, u3, u2), strict=True)]


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())
