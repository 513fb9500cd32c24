"""Prepare the graph to compile: pixels in, grey levels out, with all steps between inside the compiled model.

    u8 [1,H,W,3] -> f32 -> (x - mean) / scale -> NCHW -> network -> sigmoid -> x 255, rounded -> u8 [1,1,H,W]

Where the facts of the network say so, the picture is scaled to its largest value first, blue comes first, there is no
sigmoid, or the mask is stretched to 0..1 (see `worker.model.inference.facts`).

Compared with the same steps in NumPy around the plain network, this saves three passes over the image in Python. Per
pixel, 3 bytes enter and 1 byte leaves OpenVINO instead of 12 and 4.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from worker.contract.errors import BundleError, MaskmillError
from worker.model.format.variant import Variant
from worker.model.inference import one_channel, upsampling
from worker.model.inference.facts import InputScaling, NetworkFacts, OutputActivation, OutputStretch, read_facts
from worker.model.inference.runtime import core, ov
from worker.model.inference.value_range import value_range
from worker.model.inference.weights import check_numbers

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_SCALE = (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet on the 0-255 scale: 255 * (0.485, 0.456, 0.406) and 255 * (0.229, 0.224,
0.225). BiRefNet was trained with these values; they are assumed for an IR that has none in `model_info`."""

MAX_ELEMENTS = 1 << 33
"""Limit of values in one tensor: 32 GiB of float32."""

_CHANNELS = 3

_TINY = 1e-6
"""Least divisor: of a black picture, and of a mask without contrast, which becomes all background."""


@dataclass(frozen=True)
class Prepared:
    """A graph ready to compile."""

    model: Any
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """Per channel, in the order in which the network takes them, on the 0-255 scale."""
    facts: NetworkFacts
    """As applied; nothing is left open."""
    notes: tuple[str, ...]
    """Sentences on what had to be assumed or adapted."""


def prepare(variant: Variant) -> Prepared:
    """Read an IR, add pre- and post-processing to its graph, and put faster operations where they give the same.

    Raises:
        BundleError: the files are not a readable IR, a weight is NaN, or inputs, outputs or `model_info` do not fit.
    """
    with refusing(variant):
        return _prepare(variant)


@contextlib.contextmanager
def refusing(variant: Variant) -> Iterator[None]:
    """Refuse a network whatever OpenVINO raises for it: the files are not trusted.

    Besides RuntimeError these are errors of types that its Python layer cannot convert, such as a message with bytes of
    the file that are no text.

    Raises:
        BundleError: the block raised an error that is none of maskmill's.
    """
    try:
        yield
    except MaskmillError:
        raise
    except Exception as error:
        raise BundleError(f"{variant.xml} cannot be read as an OpenVINO IR: {_last_line(error)}") from error


def _prepare(variant: Variant) -> Prepared:
    model = core().read_model(str(variant.xml), str(variant.bin))
    check_numbers(model, str(variant.bin), "so the training or the export went wrong; convert or fetch the model again")
    notes: list[str] = []
    _fix_shape(model, variant, notes)
    _check_tensors(model, variant)
    facts = _complete(model, variant, notes)
    upsampling.replace(model)
    one_channel.replace(model)
    mean, scale = facts.mean or IMAGENET_MEAN, facts.scale or IMAGENET_SCALE
    model = _with_pixels(model, mean, scale, facts)
    _check_shapes(model, variant)
    return Prepared(_with_grey_levels(model, facts, variant.label), mean, scale, facts, tuple(notes))


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


def _check_tensors(model: Any, variant: Variant) -> None:
    """Refuse a graph with a tensor that no matting network has: compiling it may fold it, and hang or take all memory.

    Raises:
        BundleError: a tensor has more than `MAX_ELEMENTS`.
    """
    for node in model.get_ops():
        for output in node.outputs():
            shape = output.get_partial_shape()
            elements = 0 if shape.is_dynamic else math.prod(dimension.get_length() for dimension in shape)
            if elements > MAX_ELEMENTS:
                raise BundleError(
                    f"{variant.xml}: {node.get_type_name()} {node.get_friendly_name()!r:.60} returns {shape}, "
                    f"{elements:,} values, more than {MAX_ELEMENTS:,}; the file is damaged or made to exhaust memory"
                )


def _complete(model: Any, variant: Variant, notes: list[str]) -> NetworkFacts:
    """Return the facts that the IR states; what it leaves out is found in the graph or assumed, with a note."""
    facts = read_facts(model, str(variant.xml))
    if facts.mean is None:
        notes.append("the IR has no mean_values and scale_values in model_info: those of ImageNet are assumed")
        facts = replace(facts, mean=IMAGENET_MEAN, scale=IMAGENET_SCALE)
    if facts.reverse_input_channels:
        notes.append("reverse_input_channels is set: the network is given blue first")
    if facts.output_activation is None:
        facts = replace(facts, output_activation=_activation(model, variant, notes))
    return facts


def _activation(model: Any, variant: Variant, notes: list[str]) -> OutputActivation:
    """Tell from the graph whether the network returns logits.

    Raises:
        BundleError: the output has neither the range of logits nor that of probabilities.
    """
    found = value_range(model.output(0).get_node().input_value(0))
    if found.is_probability:
        notes.append(f"the IR already returns probabilities, from {found.origin or 'a constant'}: no sigmoid is added")
        return OutputActivation.PROBABILITY
    shape = model.output(0).get_partial_shape()
    if found.never_negative and shape.rank.get_length() > 1 and shape[1] == 1:
        raise BundleError(
            f"{variant.xml}: its output lies in {found.low:g}..{found.high:g} ({found.origin}), so it is neither "
            "logits nor a probability; import it again with `worker model import`"
        )
    return OutputActivation.LOGITS


def _with_pixels(model: Any, mean: tuple[float, ...], scale: tuple[float, ...], facts: NetworkFacts) -> Any:
    """Accept u8 NHWC pixels instead of normalised NCHW floats."""
    processor = ov.preprocess.PrePostProcessor(model)
    image = processor.input()
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.model().set_layout(ov.Layout("NCHW"))
    steps = image.preprocess()
    if facts.reverse_input_channels:
        steps.reverse_channels()
    steps.convert_element_type(ov.Type.f32)
    if facts.input_scaling is InputScaling.PICTURE_MAXIMUM:
        steps.custom(_divided_by_maximum)
    steps.mean(list(mean)).scale(list(scale)).convert_element_type(model.input(0).get_element_type())
    return processor.build()


def _divided_by_maximum(pixels: Any) -> Any:
    """Scale a picture f32 [1,R,R,3] so that its largest value is 255."""
    ops = ov.opset13
    largest = ops.reduce_max(pixels, ops.constant([1, 2, 3], ov.Type.i64), keep_dims=True)
    brightness = ops.divide(ops.constant(255.0, ov.Type.f32), ops.maximum(largest, ops.constant(_TINY, ov.Type.f32)))
    return ops.multiply(pixels, brightness).output(0)


def _with_grey_levels(model: Any, facts: NetworkFacts, name: str) -> Any:
    """Return u8 grey levels instead of what the network returns.

    The conversion to u8 truncates, so the values are rounded first, half to even as in `numpy.rint`. It wraps modulo
    256, so values that no sigmoid limits are clamped.
    """
    ops = ov.opset13
    mask = ops.convert(model.output(0).get_node().input_value(0), "f32")
    mask = ops.sigmoid(mask) if facts.output_activation is OutputActivation.LOGITS else ops.clamp(mask, 0.0, 1.0)
    if facts.output_stretch is OutputStretch.MIN_MAX:
        mask = _stretched(mask)
    levels = ops.round(ops.multiply(mask, ops.constant(255.0, ov.Type.f32)), "half_to_even")
    model = ov.Model([ops.result(ops.convert(levels, "u8"))], model.get_parameters(), name)
    # A generated name contains a counter of the process, and is part of the hash by which OpenVINO finds a model in its
    # cache: a second load would miss the model that the first one compiled.
    model.output(0).get_tensor().set_names({"grey_levels"})
    return model


def _stretched(mask: Any) -> Any:
    """Stretch a mask to 0..1. Its result cannot leave that range."""
    ops = ov.opset13
    axes = ops.constant([1, 2, 3], ov.Type.i64)
    lowest, highest = ops.reduce_min(mask, axes, keep_dims=True), ops.reduce_max(mask, axes, keep_dims=True)
    contrast = ops.maximum(ops.subtract(highest, lowest), ops.constant(_TINY, ov.Type.f32))
    return ops.divide(ops.subtract(mask, lowest), contrast)


def _check_shapes(model: Any, variant: Variant) -> None:
    """Check for the static shapes in the diagram of this module."""
    height, width = variant.size.height, variant.size.width
    expected = {"input": [1, height, width, _CHANNELS], "output": [1, 1, height, width]}
    for what, port in (("input", model.input(0)), ("output", model.output(0))):
        shape = port.get_partial_shape()
        if shape != ov.PartialShape(expected[what]):
            raise BundleError(f"{variant.xml}: {what} has shape {shape}, expected {expected[what]}; convert it again")


def _last_line(error: Exception) -> str:
    """The last line of an OpenVINO message, which states the error; source locations come before it."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
