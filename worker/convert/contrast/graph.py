"""Build the graph of `contrast` as a model with fixed names, and write its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset15 as op
from openvino.passes import ConstantFolding, Manager

from worker.contract.input_size import InputSize
from worker.convert.contrast.background import CELL, fit_background
from worker.convert.contrast.colour import cielab
from worker.convert.contrast.mask import filled, membership
from worker.convert.contrast.ops import Node, enlarged, planes, pooled, real, stacked
from worker.convert.contrast.residual import denoised, mahalanobis, without_shadow
from worker.convert.model_info import write_model_info
from worker.convert.package import write_bundle

NAME = "contrast"
DESCRIPTION = "Foreground by colour contrast to the picture's border; not trained. For plain or shaded backgrounds."
SIZE = 320
"""Side R in pixels; all constants in pixels and cells were chosen for it."""

GAIN = 16.0
"""Logits range from -GAIN / 2 to GAIN / 2, which are 0 and 255 after a sigmoid at 8 bits."""


def contrast_model() -> ov.Model:
    """Build the model.

    Returns:
        A model with input `image` f32 `[1, 3, R, R]`, sRGB normalised as `model_info` says, and output `logits` f32
        `[1, 1, R, R]`.
    """
    image = op.parameter([1, 3, SIZE, SIZE], np.float32, name="image")
    lab = cielab(image)
    background = fit_background(pooled(stacked(lab), CELL))
    expected = planes(enlarged(background.colour, CELL))
    residual = denoised([value - mean for value, mean in zip(lab, expected, strict=True)])
    distance = mahalanobis(without_shadow(residual, expected), background)
    logits = (filled(membership(distance)) - real(0.5)) * real(GAIN)
    return _finished(image, logits)


def write(folder: Path) -> Path:
    """Write the bundle to `folder`, replacing an existing bundle, and return the folder.

    Raises:
        BundleError: the bundle cannot be written there.
    """
    return write_bundle(
        folder,
        NAME,
        {(InputSize.square(SIZE), "fp32"): contrast_model()},
        description=DESCRIPTION,
        license="Apache-2.0",
        source={"generator": "worker.convert.contrast"},
    )


def _finished(image: Node, logits: Node) -> ov.Model:
    """Name input and output, fold and share constants, number the layers, and add `model_info`."""
    model = ov.Model([op.result(logits)], [image], NAME)
    model.input(0).get_tensor().set_names({"image"})
    model.output(0).get_tensor().set_names({"logits"})
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    _share_constants(model)
    # OpenVINO's generated names count up within a process, but the same model must give the same bytes.
    for number, layer in enumerate(model.get_ordered_ops()):
        layer.set_friendly_name("image" if layer is image else f"{layer.get_type_name()}_{number}")
    write_model_info(model)
    return model


def _share_constants(model: ov.Model) -> None:
    """Merge equal constants into one node: constants are most of the layers, and each takes half a kilobyte of XML."""
    kept: dict[tuple[str, tuple[int, ...], bytes], Node] = {}
    for layer in model.get_ordered_ops():
        if layer.get_type_name() == "Constant":
            key = layer.get_element_type().to_string(), tuple(layer.shape), layer.data.tobytes()
            layer.output(0).replace(kept.setdefault(key, layer).output(0))
