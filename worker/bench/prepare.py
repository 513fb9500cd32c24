"""What a comparison needs on disk: weights, the networks built from them, and the picture. Runs in a child process.

checkpoint, or random arrays -> plain/openvino_fp32/... (no rewrite) and, without a bundle, ours/openvino_fp32/...
image_512.npy (u8, as the worker feeds it) and normalised_512.npy (f32, as the bare network takes it)
"""

from __future__ import annotations

import hashlib
import importlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.input_size import InputSize
from worker.convert.birefnet import layout

NAME = "birefnet_lite"
RANDOM = "random"

# ImageNet's mean and deviation on the 0-255 scale, which BiRefNet was trained with.
MEAN = (123.675, 116.28, 103.53)
SCALE = (58.395, 57.12, 57.375)


def arrays(checkpoint: str | None) -> tuple[dict[str, npt.NDArray[np.float32]], str]:
    """The weights, and where they come from in words.

    Raises:
        MaskmillError: the checkpoint cannot be read.
    """
    if checkpoint is None:
        return random_arrays(), f"{RANDOM} (no checkpoint given): speeds are real, masks mean nothing"
    from worker.convert.birefnet.checkpoint import load  # needs `safetensors`, which random weights do not

    with Path(checkpoint).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return load(checkpoint), f"{Path(checkpoint).name}, sha256 {digest}"


def random_arrays() -> dict[str, npt.NDArray[np.float32]]:
    """RANDOM weights by published name, for timing without a checkpoint: the same on every machine, and meaningless.

    Spreads follow He et al. (arXiv 1502.01852), so that values neither die nor explode; offsets of the deformable
    convolutions reach a pixel or so, which decides how scattered their reads are.
    """
    return {name: _random(name, shape) for name, shape in layout.required().items()}


def _random(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return (1 + 0.1 * np.abs(noise)).astype(np.float32)
    if len(shape) == 1:
        is_scale = name.endswith(".weight")
        return (is_scale + 0.1 * noise).astype(np.float32)
    if name.endswith("bias_table"):
        return 0.1 * noise
    fan_in = math.prod(shape[1:])
    return (math.sqrt(2 / fan_in) * noise).astype(np.float32)


def picture(size: InputSize) -> npt.NDArray[np.uint8]:
    """A smooth picture with some grain, u8 `[1, height, width, 3]`, the same on every machine."""
    shape = size.height, size.width
    rng = np.random.default_rng(size.height if size.is_square else shape)
    rows, columns = (np.linspace(0, 2 * np.pi, side, endpoint=False) for side in shape)
    waves = np.zeros((*shape, 3))
    for _ in range(6):
        across, down = rng.integers(1, 6, 2)
        wave = np.sin(across * columns[None, :] + down * rows[:, None] + rng.uniform(0, 2 * np.pi))
        waves += wave[:, :, None] * rng.uniform(-1, 1, 3)
    grain = rng.standard_normal((*shape, 3))
    levels: npt.NDArray[np.uint8] = np.clip(128 + 35 * waves + 6 * grain, 0, 255).astype(np.uint8)[None]
    return levels


def prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write everything for one size into `request["folder"]`.

    Args:
        request: `size`, `checkpoint` (or None), `folder`, `build_ours` (whether to build the rewritten network).

    Returns:
        `weights` in words, `image` and `normalised` (paths), `plain` and `ours` (bundle folders, `ours` or None).
    """
    ov = importlib.import_module(
        "worker.model.inference.runtime"
    ).ov  # before the rest: it keeps OpenVINO's telemetry out
    from worker.convert.birefnet.network import build
    from worker.convert.birefnet.rewrites import ALL, NONE
    from worker.images.tensor import normalise

    folder, size = Path(request["folder"]), InputSize.parse(request["size"])
    weights, words = arrays(request["checkpoint"])
    answer: dict[str, Any] = {"weights": words, "ours": None}
    wanted = {"plain": NONE} | ({"ours": ALL} if request["build_ours"] else {})
    for role, rewrites in wanted.items():
        xml = folder / role / "openvino_fp32" / f"{NAME}_{size}_fp32.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        model = build(weights, size, rewrites)
        model.set_rt_info(" ".join(map(str, MEAN)), ["model_info", "mean_values"])
        model.set_rt_info(" ".join(map(str, SCALE)), ["model_info", "scale_values"])
        ov.save_model(model, str(xml), compress_to_fp16=False)
        answer[role] = str(folder / role)
    image = picture(size)
    for name, array in (("image", image), ("normalised", np.ascontiguousarray(normalise(image, MEAN, SCALE)))):
        np.save(folder / f"{name}_{size}.npy", array)
        answer[name] = str(folder / f"{name}_{size}.npy")
    return answer
