"""Deterministic stand-in weights for BiRefNet, for tests without a checkpoint.

Every array is drawn from a generator seeded by the CRC-32 of its name, so the values depend neither on the order nor on
the machine. The values are random, but their spreads are chosen so that every path of the network has an effect
(offsets, modulators and batch-norm statistics are not trivial). The reference arrays in `tests/data/birefnet` were
computed by the published definition from these values.

    PYTHONPATH=.:tests python -m support.birefnet_weights model.safetensors

writes weights for `worker model convert` whose masks have areas and edges, for measurements from S3 to S3. With the
plain stand-in weights the masks are noise, the worst case for an encoder.
"""

from __future__ import annotations

import csv
import importlib
import math
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "birefnet"

LITE = DATA / "state_dict.tsv"
SWIN_L = DATA / "state_dict_swin_l.tsv"

SUBJECT_GAIN = 32.0
SUBJECT_BRIGHTNESS = 0.7
"""Brightness from which a pixel is subject, in standard deviations of ImageNet pixels; the gain scales the logits."""


def published_shapes(table: Path = LITE) -> dict[str, tuple[int, ...]]:
    """Return the shape of every entry of a published state dict, whether weight or not."""
    with table.open(encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t")
        return {row["name"]: tuple(int(side) for side in row["shape"].split("x") if side) for row in rows}


def stand_in(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """Return the value of one entry; another salt gives another set."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "relative_position_index":
        return _position_index(math.isqrt(shape[0]))
    rng = np.random.default_rng(zlib.crc32((salt + name).encode()))
    noise = rng.standard_normal(shape).astype(np.float32)
    if leaf == "running_var":
        return (0.5 + rng.random(shape)).astype(np.float32)
    return _scaled(name, leaf, noise)


def _scaled(name: str, leaf: str, noise: np.ndarray) -> np.ndarray:
    if leaf == "running_mean":
        return 0.1 * noise
    if leaf == "relative_position_bias_table":
        return 0.3 * noise
    if leaf == "bias":
        return (0.7 if "offset_conv" in name else 0.1) * noise
    if noise.ndim == 1:
        return (1 + 0.1 * noise).astype(np.float32)
    gain = 0.3 if "offset_conv" in name or "modulator_conv" in name else 1.4
    return (gain / math.sqrt(np.prod(noise.shape[1:])) * noise).astype(np.float32)


def _position_index(window: int) -> np.ndarray:
    rows, cols = np.divmod(np.arange(window * window), window)
    down, right = rows[:, None] - rows, cols[:, None] - cols
    return ((down + window - 1) * (2 * window - 1) + right + window - 1).astype(np.int64)


def stand_in_state_dict(salt: str = "", table: Path = LITE) -> dict[str, np.ndarray]:
    """Return a complete state dict: 44 million parameters, or 220 million of the Swin-L table."""
    return {name: stand_in(name, shape, salt) for name, shape in published_shapes(table).items()}


def stand_in_image(size: int | tuple[int, int]) -> np.ndarray:
    """Return a smooth, noisy picture, already normalised: `[1, 3, height, width]` float32."""
    height, width = (size, size) if isinstance(size, int) else size
    label = f"input{size}" if isinstance(size, int) else f"input{height}x{width}"
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    coarse = rng.standard_normal((3, 9, 9))
    (low_y, part_y), (low_x, part_x) = _knots(height), _knots(width)
    rows = coarse[:, low_y] * (1 - part_y)[None, :, None] + coarse[:, low_y + 1] * part_y[None, :, None]
    picture = rows[:, :, low_x] * (1 - part_x) + rows[:, :, low_x + 1] * part_x
    return (picture + 0.2 * rng.standard_normal(picture.shape))[None].astype(np.float32)


def _knots(length: int) -> tuple[np.ndarray, np.ndarray]:
    grid = np.linspace(0, 8, length)
    low = np.floor(grid).astype(int).clip(0, 7)
    return low, grid - low


def subject_state_dict() -> dict[str, np.ndarray]:
    """Return the stand-in set with another last layer, for which bright areas are the subject and have edges.

    For the picture that `worker bench` generates, the mask takes 80 KB as PNG at 2 megapixels, like a smooth mask.
    """
    arrays = stand_in_state_dict()
    weight, bias = brightness_layer(arrays)
    arrays["decoder.conv_out1.0.weight"], arrays["decoder.conv_out1.0.bias"] = weight, bias
    return arrays


def brightness_layer(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return weight `[1, 120, 1, 1]` and bias `[1]` of a last layer that computes the brightness around a pixel.

    The last 24 of its inputs (`ipt_blk1`) are two 3x3 convolutions of the picture without activation between them, so
    each is one 5x5 convolution of the colours. Least squares finds the mixture of them that is closest to a mean. The
    other 96 inputs, which are noise, contribute with a hundredth of their strength.
    """
    first, second = (arrays[f"decoder.ipt_blk1.{name}.weight"].astype(float) for name in ("conv1", "conv_out"))
    kernels = np.zeros((second.shape[0], 3, 5, 5))
    for down in range(3):
        for across in range(3):
            part = np.einsum("om,mchw->ochw", second[:, :, down, across], first)
            kernels[:, :, down : down + 3, across : across + 3] += part
    constant = second.sum((2, 3)) @ arrays["decoder.ipt_blk1.conv1.bias"] + arrays["decoder.ipt_blk1.conv_out.bias"]
    mixture = np.linalg.lstsq(kernels.reshape(len(kernels), -1).T, np.full(75, 1 / 75), rcond=None)[0]
    mixture *= SUBJECT_GAIN / (mixture @ kernels.reshape(len(kernels), -1).sum(1))
    noise = 0.01 * arrays["decoder.conv_out1.0.weight"].reshape(-1)[:96]
    weight = np.concatenate([noise, mixture]).reshape(1, 120, 1, 1)
    return weight.astype(np.float32), np.array([-mixture @ constant - SUBJECT_GAIN * SUBJECT_BRIGHTNESS], np.float32)


if __name__ == "__main__":
    importlib.import_module("safetensors.numpy").save_file(subject_state_dict(), sys.argv[1])
