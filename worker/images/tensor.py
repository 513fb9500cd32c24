"""Convert pictures to network inputs and network outputs to masks, with an antialiased bilinear resize both ways.

`to_tensor` prepares the input of the compiled model, `to_mask` converts its output. Mean, scale and sigmoid are part of
the compiled model; `normalise` is a plain reference of its first step, for tests and calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.input_size import InputSize
from worker.images.decode import Picture
from worker.images.resize import bilinear

BACKDROP = (128, 128, 128)
"""Colour that replaces transparent parts of the input, for the network only: mid-grey, so that both a white and a black
subject stand out. The colours of a cut-out are never composited on it."""

_CHANNELS = 3
_PLANE = 2


def to_tensor(picture: Picture, size: InputSize) -> npt.NDArray[np.uint8]:
    """Return the picture as network input, resized to `size` without keeping the aspect ratio, as in training.

    Returns:
        u8 [1, height, width, 3], NHWC, RGB, writable and contiguous.
    """
    seen = picture.rgb
    if picture.alpha is not None:
        seen = Image.composite(seen, Image.new("RGB", seen.size, BACKDROP), picture.alpha)
    return np.array(bilinear(seen, (size.width, size.height), picture.box))[np.newaxis]


def to_mask(mask: npt.NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """Resize the output of the network to the size of the picture.

    Args:
        mask: u8 [h, w], 0 background, 255 subject.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.

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
    """Return (x - mean) / scale for each channel, in the layout of the network.

    Args:
        tensor: u8 [n, h, w, 3], NHWC.
        mean: mean of each channel, on the scale 0 to 255.
        scale: standard deviation of each channel, on the scale 0 to 255.

    Returns:
        f32 [n, 3, h, w], NCHW, contiguous.

    Raises:
        ValueError: the numbers of channels, means and scales are not all three.
    """
    if not len(mean) == len(scale) == tensor.shape[-1] == _CHANNELS:
        raise ValueError(
            f"got {len(mean)} means and {len(scale)} scales for {tensor.shape[-1]} channels; expected three of each"
        )
    values = (tensor.astype(np.float32) - np.array(mean, np.float32)) / np.array(scale, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
