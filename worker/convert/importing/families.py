"""The families of networks that are known: how they are fed and what they return.

The values are those of the programs that the authors publish with their networks. `recognise` tells the family of a
graph from what its members have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from worker.contract.input_size import InputSize
from worker.model.inference.facts import InputScaling, OutputStretch

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_SCALE = (58.395, 57.12, 57.375)


class Family(StrEnum):
    """A family of networks."""

    U2NET = "u2net"
    ISNET = "isnet"
    BIREFNET = "birefnet"
    MODNET = "modnet"


@dataclass(frozen=True)
class Preset:
    """How the networks of a family are fed, and what is done with their masks."""

    title: str
    size: InputSize
    """Taken if the file leaves the size open."""
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    """On the scale 0 to 255."""
    input_scaling: InputScaling = InputScaling.FIXED
    output_stretch: OutputStretch = OutputStretch.NONE


PRESETS: Mapping[Family, Preset] = MappingProxyType(
    {
        Family.U2NET: Preset(
            "U²-Net, U²-Net-p, silueta",
            InputSize.square(320),
            _IMAGENET_MEAN,
            _IMAGENET_SCALE,
            InputScaling.PICTURE_MAXIMUM,
            OutputStretch.MIN_MAX,
        ),
        Family.ISNET: Preset(
            "IS-Net (DIS)",
            InputSize.square(1024),
            (127.5, 127.5, 127.5),
            (255.0, 255.0, 255.0),
            output_stretch=OutputStretch.MIN_MAX,
        ),
        Family.BIREFNET: Preset("BiRefNet", InputSize.square(1024), _IMAGENET_MEAN, _IMAGENET_SCALE),
        Family.MODNET: Preset("MODNet and other matting networks", InputSize.square(512), (127.5,) * 3, (127.5,) * 3),
    }
)


@dataclass(frozen=True)
class Traits:
    """What can be seen of a graph."""

    outputs: int
    """Number of outputs."""
    masks: int
    """Number of outputs with one channel."""
    operations: Mapping[str, int]
    """Type of OpenVINO operation -> how many of them."""

    def count(self, *kinds: str) -> int:
        """Return the number of operations of these types."""
        return sum(self.operations.get(kind, 0) for kind in kinds)


_U2NET_OUTPUTS = 7
_ISNET_OUTPUTS = 12
_ISNET_MASKS = 6
_SWIN_BLOCKS = (12, 24)
"""Blocks of attention of Swin-T and of the larger Swins, each with one softmax."""


def recognise(traits: Traits) -> tuple[Family, str] | None:
    """Return the family of a graph and what it was told from; None if the graph does not tell."""
    if traits.outputs == traits.masks == _U2NET_OUTPUTS:
        return Family.U2NET, "seven outputs of one channel: the mask and one for each of six stages"
    if traits.outputs == _ISNET_OUTPUTS and traits.masks == _ISNET_MASKS:
        return Family.ISNET, "twelve outputs: a mask and the features of each of six stages"
    attention = traits.count("Softmax", "SoftMax", "ScaledDotProductAttention")
    if attention in _SWIN_BLOCKS and traits.masks:
        return Family.BIREFNET, f"{attention} blocks of attention, as in the Swin that BiRefNet is built on"
    if traits.outputs == traits.masks == 1 and traits.count("MVN") and traits.count("GroupConvolution"):
        return Family.MODNET, "instance normalisation and depth-wise convolutions, as in MODNet"
    return None


def known() -> str:
    """Return the families for messages."""
    return ", ".join(Family)
