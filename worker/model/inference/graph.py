"""Prepare the graph to compile: pixels in, grey levels out, with all steps between inside the compiled model.

    u8 [1,H,W,3] -> f32 -> (x - mean) / scale -> NCHW -> network -> sigmoid -> x 255, rounded -> u8 [1,1,H,W]

Compared with the same steps in NumPy around the plain network, this saves three passes over the image in Python. Per
pixel, 3 bytes enter and 1 byte leaves OpenVINO instead of 12 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.contract.errors import BundleError
from worker.model.format.variant import Variant
from worker.model.inference.runtime import core, ov

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_SCALE = (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet on the 0-255 scale: 255 * (0.485, 0.456, 0.406) and 255 * (0.229, 0.224,
0.225). BiRefNet was trained with these values; they are assumed for an IR that has none in `model_info`."""

_CHANNELS = 3


@dataclass(frozen=True)
class Prepared:
    """A graph ready to compile."""

    model: Any
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """Per channel, red first, on the 0-255 scale."""
    notes: tuple[str, ...]
    """Sentences on what had to be assumed or adapted."""


def prepare(variant: Variant) -> Prepared:
    """Read an IR, and add pre- and post-processing to its graph.

    Raises:
        BundleError: the files are not a readable IR, or its inputs, outputs or `model_info` do not fit.
    """
    try:
        model = core().read_model(str(variant.xml), str(variant.bin))
    except RuntimeError as error:
        raise BundleError(f"{variant.xml} cannot be read as an OpenVINO IR: {_last_line(error)}") from error
    notes: list[str] = []
    _fix_shape(model, variant, notes)
    mean, scale = _normalisation(model, variant, notes)
    model = _with_grey_levels(_with_pixels(model, mean, scale), variant, notes)
    _check_shapes(model, variant)
    return Prepared(model, mean, scale, tuple(notes))


def _fix_shape(model: Any, variant: Variant, notes: list[str]) -> None:
    """Check for one input [1, 3, H, W] and one output; make a dynamic input static, which the plugin runs faster."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BundleError(
            f"{variant.xml} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each; "
            "convert a network that returns a mask"
        )
    expected = ov.PartialShape([1, _CHANNELS, variant.size.height, variant.size.width])
    given = model.input(0).get_partial_shape()
    if not given.compatible(expected):
        raise BundleError(
            f"{variant.xml}: its input is {given}, but its file name says {expected}; rename or convert it again"
        )
    if given.is_dynamic:
        notes.append(f"the dynamic input {given} was made static: {expected}")
        model.reshape(expected)


def _normalisation(model: Any, variant: Variant, notes: list[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, scale = _model_info(model, variant, "mean_values"), _model_info(model, variant, "scale_values")
    if mean is None and scale is None:
        notes.append("the IR has no mean_values and scale_values in model_info: those of ImageNet are assumed")
        return IMAGENET_MEAN, IMAGENET_SCALE
    if mean is None or scale is None or 0 in scale:
        raise BundleError(f"{variant.xml}: model_info needs both mean_values and scale_values, and no scale may be 0")
    return mean, scale


def _model_info(model: Any, variant: Variant, key: str) -> tuple[float, ...] | None:
    """Three numbers from the section `model_info`, which model_api reads as well; None if the key is absent."""
    path = ["model_info", key]
    if not model.has_rt_info(path):
        return None
    text = model.get_rt_info(path).astype(str)
    try:
        values = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) != _CHANNELS:
        raise BundleError(f"{variant.xml}: {key} in model_info is {text!r}, expected three numbers")
    return values


def _with_pixels(model: Any, mean: tuple[float, ...], scale: tuple[float, ...]) -> Any:
    """Accept u8 NHWC pixels instead of normalised NCHW floats."""
    processor = ov.preprocess.PrePostProcessor(model)
    image = processor.input()
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.model().set_layout(ov.Layout("NCHW"))
    steps = image.preprocess().convert_element_type(ov.Type.f32).mean(list(mean)).scale(list(scale))
    steps.convert_element_type(model.input(0).get_element_type())
    return processor.build()


def _with_grey_levels(model: Any, variant: Variant, notes: list[str]) -> Any:
    """Return u8 grey levels instead of logits.

    The conversion to u8 truncates, so the values are rounded first, half to even as in `numpy.rint`. A sigmoid lies in
    0..1, so nothing can overflow.
    """
    ops = ov.opset13
    value = model.output(0).get_node().input_value(0)
    if value.get_node().get_type_name() == "Sigmoid":
        notes.append("the IR already ends in a sigmoid: none is added")
        probability = ops.convert(value, "f32")
    else:
        probability = ops.sigmoid(ops.convert(value, "f32"))
    levels = ops.round(ops.multiply(probability, ops.constant(255.0, ov.Type.f32)), "half_to_even")
    model = ov.Model([ops.result(ops.convert(levels, "u8"))], model.get_parameters(), variant.label)
    # A generated name contains a counter of the process, and is part of the hash by which OpenVINO finds a model in its
    # cache: a second load would miss the model that the first one compiled.
    model.output(0).get_tensor().set_names({"grey_levels"})
    return model


def _check_shapes(model: Any, variant: Variant) -> None:
    """Check for the static shapes in the diagram of this module."""
    height, width = variant.size.height, variant.size.width
    expected = {"input": [1, height, width, _CHANNELS], "output": [1, 1, height, width]}
    for what, port in (("input", model.input(0)), ("output", model.output(0))):
        shape = port.get_partial_shape()
        if shape != ov.PartialShape(expected[what]):
            raise BundleError(f"{variant.xml}: {what} has shape {shape}, expected {expected[what]}; convert it again")


def _last_line(error: RuntimeError) -> str:
    """The last line of an OpenVINO message, which states the error; source locations come before it."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
