"""Prepare the files of a comparison: the networks built from the weights, and the picture. Runs in a child process.

checkpoint, or random arrays -> plain/openvino_fp32/... (no rewrite) and, without a bundle, ours/openvino_fp32/...
image_512.npy (u8, the input of the worker's graph) and normalised_512.npy (f32, the input of the network itself)
"""

from __future__ import annotations

import hashlib
import importlib
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.bench.harness.picture import picture
from worker.bench.harness.requests import PreparedFiles, PrepareRequest
from worker.contract.input_size import InputSize
from worker.convert.birefnet import layout

NAME = "birefnet_lite"
RANDOM = "random"

# ImageNet's mean and standard deviation on the 0-255 scale, with which BiRefNet was trained.
MEAN = (123.675, 116.28, 103.53)
SCALE = (58.395, 57.12, 57.375)


def arrays(checkpoint: str | None) -> tuple[dict[str, npt.NDArray[np.float32]], str]:
    """Return the weights by published name, and their origin in words.

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
    """Return RANDOM weights by published name, for timing without a checkpoint: the same on every machine.

    The spread follows He et al. (arXiv 1502.01852), so values neither vanish nor explode. Offsets of the deformable
    convolutions are about a pixel, which decides how scattered their reads are.
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


def prepare(request: PrepareRequest) -> PreparedFiles:
    """Write the networks and the picture of one size into `folder`.

    Raises:
        MaskmillError: the checkpoint cannot be read.
    """
    # Before the other imports, because it disables OpenVINO's telemetry.
    ov = importlib.import_module("worker.model.inference.runtime").ov
    from worker.convert.birefnet.network import build
    from worker.convert.birefnet.rewrites import ALL, NONE
    from worker.images.tensor import normalise

    folder, size = Path(request["folder"]), InputSize.parse(request["size"])
    weights, words = arrays(request["checkpoint"])
    roles = {"plain": NONE} | ({"ours": ALL} if request["build_ours"] else {})
    for role, rewrites in roles.items():
        xml = folder / role / "openvino_fp32" / f"{NAME}_{size}_fp32.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        model = build(weights, size, rewrites)
        model.set_rt_info(" ".join(map(str, MEAN)), ["model_info", "mean_values"])
        model.set_rt_info(" ".join(map(str, SCALE)), ["model_info", "scale_values"])
        ov.save_model(model, str(xml), compress_to_fp16=False)
    image = picture(size)
    np.save(folder / f"image_{size.short}.npy", image)
    np.save(folder / f"normalised_{size.short}.npy", np.ascontiguousarray(normalise(image, MEAN, SCALE)))
    return {
        "weights": words,
        "checkpoint": request["checkpoint"],
        "image": str(folder / f"image_{size.short}.npy"),
        "normalised": str(folder / f"normalised_{size.short}.npy"),
        "plain": str(folder / "plain"),
        "ours": str(folder / "ours") if request["build_ours"] else None,
    }
