"""Export trained weights as a bundle: OpenVINO IR in FP16 and INT8, and in FP32 on request, for comparison."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker.contract.input_size import InputSize
from worker.convert.model_info import write_model_info
from worker.images.tensor import normalise
from worker.model.format import writer
from worker.model.format.layout import Candidate
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import ov
from worker.training import compose, library
from worker.training.network import Starter

NAME = "starter"
SIZE = 320
DESCRIPTION = "A small network for first runs, trained from scratch on composites of free pictures."
SHIPPED = ("fp16", "int8")
CARD = Path(__file__).with_name("MODEL_CARD.md")
TOOLS = ("openvino", "nncf", "torch")
"""Distributions whose versions the bundle manifest records."""
CALIBRATION_IMAGES = 256
FIRST, LAST = 5, 6
"""Number of convolutions at the input and at the output that stay in float: they detect and draw the edges."""
_CALIBRATION_SEED = 2


def write(
    weights: Path, folder: Path, dest: Path, *, precisions: Sequence[str] = SHIPPED, source: dict[str, Any]
) -> Path:
    """Write the bundle.

    Args:
        weights: file written by `train`.
        folder: of the library; composites for calibrating INT8 are made from it.
        dest: folder of the bundle, which is replaced.
        precisions: variants to write.
        source: section `source` of the bundle manifest (JSON).

    Returns:
        `dest`, absolute.

    Raises:
        BundleError: a precision is unknown, or the bundle cannot be written.
    """
    dest = dest.absolute()
    writer.check_precisions(dest, set(precisions))
    with writer.staged(dest) as made:
        for precision in precisions:
            network = converted(weights)
            if precision == "int8":
                network = quantised(network, _calibration_pictures(folder))
            write_model_info(network)
            xml = made / Candidate(NAME, InputSize.square(SIZE), precision).xml
            xml.parent.mkdir()
            ov.save_model(network, xml, compress_to_fp16=precision != "fp32")
        (made / CARD.name).write_bytes(CARD.read_bytes())
        tools = {name: metadata.version(name) for name in TOOLS}
        writer.write_bundle_manifest(
            made, NAME, description=DESCRIPTION, license="Apache-2.0", source=source, tools=tools
        )
    return dest


def converted(weights: Path) -> Any:
    """Convert trained weights to an OpenVINO model.

    Returns:
        A model with input `image` f32 `[1, 3, R, R]`, normalised as `model_info` says, and output `logits` f32
        `[1, 1, R, R]`.
    """
    network = Starter()
    with np.load(weights) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    network.eval()
    shape = [1, 3, SIZE, SIZE]
    model = ov.convert_model(network, example_input=torch.zeros(shape), input=shape)
    model.set_friendly_name(NAME)
    model.input(0).get_tensor().set_names({"image"})
    model.output(0).get_tensor().set_names({"logits"})
    return model


def quantised(network: Any, pictures: Any) -> Any:
    """Quantise weights and activations to INT8, except for the first and last layers.

    Weights use all eight bits. Eight bits overflow on CPUs without VNNI, but those run FP16 instead. Over 60 stamps the
    mean absolute difference of the masks from FP32 is 0.0102 with all layers in seven bits, 0.0083 in eight, and 0.0052
    in eight with the first and last layers in float.

    Args:
        network: model in float32.
        pictures: u8 `[n, R, R, 3]`, from which the ranges of the activations are taken.
    """
    nncf = importlib.import_module("nncf")  # after `runtime`, which imports OpenVINO without its telemetry
    kinds = ("Convolution", "GroupConvolution")
    names = [n.get_friendly_name() for n in network.get_ordered_ops() if n.get_type_name() in kinds]

    def prepared(index: int) -> Any:
        return normalise(pictures[index : index + 1], IMAGENET_MEAN, IMAGENET_SCALE)

    return nncf.quantize(
        network,
        nncf.Dataset(range(len(pictures)), prepared),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(pictures),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=names[:FIRST] + names[-LAST:]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE),
    )


def _calibration_pictures(folder: Path) -> Any:
    """Compose pictures u8 `[n, R, R, 3]` with another seed than the training series."""
    found = library.load(folder, "train")
    return np.stack([compose.composite(found, SIZE, _CALIBRATION_SEED, n).pixels for n in range(CALIBRATION_IMAGES)])
