"""Between pictures and what the network takes and gives, with an antialiased bilinear resize both ways.

`to_tensor` feeds the compiled model, `to_mask` takes its answer. Mean, scale and sigmoid happen inside the model;
`normalise` is the plain reference of its first step, for tests and calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.images.decode import Picture
from worker.images.resize import bilinear

BACKDROP = (128, 128, 128)
"""What shows through where the input is transparent, for the network's eyes only: mid-grey, so that neither a white nor
a black subject melts into it. The colours of a cut-out are never composited."""

_CHANNELS = 3
_PLANE = 2


def to_tensor(picture: Picture, size: int) -> npt.NDArray[np.uint8]:
    """The picture as the network sees it: resized to a square without keeping the aspect, as it was in training.

    Returns:
        u8 [1, size, size, 3], NHWC, RGB, writable and contiguous.
    """
    seen = picture.rgb
    if picture.alpha is not None:
        seen = Image.composite(seen, Image.new("RGB", seen.size, BACKDROP), picture.alpha)
    return np.array(bilinear(seen, (size, size), picture.box))[np.newaxis]


def to_mask(mask: npt.NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """The network's answer at the size of the picture.

    Args:
        mask: u8 [h, w], 0 background, 255 subject.
        width: of the upright picture, pixels.
        height: of the upright picture, pixels.

    Returns:
        Image of mode L.

    Raises:
        ValueError: `mask` is not u8 [h, w].
    """
    if mask.dtype != np.uint8 or mask.ndim != _PLANE:
        raise ValueError(
            f"a mask is u8 [h, w], not {mask.dtype} {list(mask.shape)}; take one plane of the model's output"
        )
    return bilinear(Image.fromarray(mask), (width, height))


def normalise(tensor: npt.NDArray[np.uint8], mean: Sequence[float], scale: Sequence[float]) -> npt.NDArray[np.float32]:
    """(x - mean) / scale for each channel, and the layout of the network.

    Args:
        tensor: u8 [n, h, w, 3], NHWC.
        mean: of each channel, on the scale 0 to 255.
        scale: standard deviation of each channel, on the scale 0 to 255.

    Returns:
        f32 [n, 3, h, w], NCHW, contiguous.

    Raises:
        ValueError: not one mean and one scale for each of three channels.
    """
    if not len(mean) == len(scale) == tensor.shape[-1] == _CHANNELS:
        raise ValueError(f"{len(mean)} means and {len(scale)} scales for {tensor.shape[-1]} channels; three of each")
    values = (tensor.astype(np.float32) - np.array(mean, np.float32)) / np.array(scale, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
