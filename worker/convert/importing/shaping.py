"""Give a published network the form that the engine expects: one input [1, 3, H, W], one output [1, 1, H, W].

    several outputs            one is kept, what only the others need falls away
    open shapes                fixed to one picture of one size
    NHWC input                 a transposition in front
    [1,H,W], [1,H,W,1], [H,W]  reshaped
    two channels               the subject's probability, or the difference of both logits
    a smaller mask             enlarged to the size of the input

`OutputForm` does the same with an array, for the comparison with another runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.convert.importing.families import Traits
from worker.model.format.layout import SIZE_MULTIPLE
from worker.model.inference.runtime import fold_constants, ov
from worker.model.inference.value_range import value_range

_CHANNELS = 3
_RANK = 4
_PLANE = 2
_TWO = 2

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OutputForm:
    """How the chosen output becomes a mask of the size of the input."""

    shape: tuple[int, ...]
    """As the network returns it."""
    channel_axis: int | None
    """None if there is no axis for channels."""
    take: Literal["only", "second", "difference"]
    """Which channel is the mask; `difference`: the second minus the first, whose sigmoid is their softmax."""
    plane: InputSize
    """Height and width of the output."""
    size: InputSize
    """Height and width of the input."""

    def in_graph(self, value: Any) -> Any:
        """Return a node `[1, 1, H, W]` made from the network's output."""
        ops = ov.opset13
        if self.channel_axis is not None and self.take != "only":
            second = _channel(value, self.channel_axis, 1)
            value = second if self.take == "second" else ops.subtract(second, _channel(value, self.channel_axis, 0))
        shape = np.array([1, 1, self.plane.height, self.plane.width], np.int64)
        value = ops.reshape(value, ops.constant(shape), special_zero=False)
        if self.plane == self.size:
            return value
        size = ops.constant(np.array([self.size.height, self.size.width], np.int64))
        axes = ops.constant(np.array([2, 3], np.int64))
        return ops.interpolate(value, size, "linear_onnx", "sizes", axes=axes)

    def in_array(self, raw: npt.NDArray[Any]) -> Floats:
        """Return a mask f32 `[H, W]` made from the network's output."""
        values = np.asarray(raw, np.float32)
        if self.channel_axis is not None and self.take != "only":
            first, second = np.moveaxis(values, self.channel_axis, 0)
            values = second if self.take == "second" else second - first
        plane = values.reshape(self.plane.height, self.plane.width)
        return _enlarged(_enlarged(plane, 0, self.size.height), 1, self.size.width)

    def describe(self) -> str:
        """Return in words what is done; empty if the output is a mask already."""
        parts = []
        if self.take == "second":
            parts.append("the second of two channels is the subject")
        elif self.take == "difference":
            parts.append("two channels of logits: the second, the subject, minus the first")
        if self.plane != self.size:
            parts.append(f"enlarged from {self.plane} to {self.size}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Shaped:
    """A network in the form that the engine expects, before its activation."""

    model: Any
    size: InputSize
    output: str
    """Name of the output that was kept."""
    outputs: int
    """Outputs of the published file."""
    output_index: int
    """Position of the output in the published file."""
    takes_nhwc: bool
    """Whether the published network takes its channels last."""
    form: OutputForm


def traits(model: Any) -> Traits:
    """Return the facts that identify the family of a network."""
    shapes = [output.get_partial_shape() for output in model.outputs]
    masks = sum(shape.rank.is_static and shape.rank.get_length() == _RANK and shape[1] == 1 for shape in shapes)
    return Traits(len(shapes), masks, Counter(node.get_type_name() for node in model.get_ops()))


def choose_output(model: Any, name: str | None) -> int:
    """Return the position of the output that holds the mask.

    Raises:
        SettingsError: there is no output of this name; lists all.
    """
    if name is None:
        return 0
    names = [output_name(model, index) for index in range(len(model.outputs))]
    for index, output in enumerate(model.outputs):
        if name in output.get_names() or name == names[index]:
            return index
    raise SettingsError(f"--output-name {name}: there is no such output; the network has {', '.join(names)}")


def output_name(model: Any, index: int) -> str:
    """Return a name of an output: that of its tensor, or of the operation that makes it."""
    output = model.outputs[index]
    return str(min(output.get_names(), default="")) or _operation_name(output)


def _operation_name(output: Any) -> str:
    return str(output.get_node().input_value(0).get_node().get_friendly_name())


def shape(model: Any, output: int, size: InputSize | None, default: InputSize | None) -> Shaped:
    """Give a network its form. `model` is used up.

    Args:
        model: as published.
        output: position of the output to keep.
        size: as requested.
        default: taken if neither the request nor the file gives a size.

    Raises:
        BundleError: the network takes something else than one picture, or returns no mask.
        SettingsError: the size is missing, or the network has another one.
    """
    name, outputs = output_name(model, output), len(model.outputs)
    model = ov.Model([model.outputs[output].get_node()], model.get_parameters(), model.get_friendly_name())
    image = _only_input(model)
    nhwc = _takes_nhwc(image)
    fixed = _size(image.get_partial_shape(), nhwc=nhwc, size=size, default=default)
    _make_static(model, image, fixed, nhwc=nhwc)
    value = model.outputs[0].get_node().input_value(0)
    form = _form(value, fixed)
    return Shaped(_rebuilt(model, value, form, nhwc=nhwc), fixed, name, outputs, output, nhwc, form)


def _only_input(model: Any) -> Any:
    """The input that the kept output depends on."""
    used = [parameter for parameter in model.get_parameters() if parameter.output(0).get_target_inputs()]
    if len(used) != 1:
        names = ", ".join(parameter.get_friendly_name() for parameter in used)
        raise BundleError(
            f"the network has {len(used)} inputs ({names}), expected one picture; export it without the others"
        )
    (image,) = used
    kind = image.get_element_type()
    if not kind.is_real():
        raise BundleError(f"the network takes {kind.get_type_name()}, expected floats; export it without quantisation")
    return image


def _takes_nhwc(image: Any) -> bool:
    given = image.get_partial_shape()
    if given.rank.is_dynamic or given.rank.get_length() != _RANK:
        raise BundleError(f"the network takes {given}, expected one picture [1, {_CHANNELS}, height, width]")
    if given[1] == _CHANNELS:
        return False
    if given[3] == _CHANNELS:
        return True
    if given[1].is_dynamic:
        return False
    raise BundleError(f"the network takes {given}, expected pictures of {_CHANNELS} channels")


def _size(given: Any, *, nhwc: bool, size: InputSize | None, default: InputSize | None) -> InputSize:
    """The size of the input: that of the file where it is fixed, else the requested one, else the default."""
    sides = [given[1], given[2]] if nhwc else [given[2], given[3]]
    if all(side.is_static for side in sides):
        fixed = InputSize(*(side.get_length() for side in sides))
        if size and size != fixed:
            raise SettingsError(f"--size {size}: the file fixes {fixed}; leave --size out, or export the network again")
    else:
        chosen = size or default
        if chosen is None:
            raise SettingsError("the network takes pictures of any size; say which one: --size HEIGHTxWIDTH")
        wanted = (chosen.height, chosen.width)
        if any(side.is_static and side.get_length() != want for side, want in zip(sides, wanted, strict=True)):
            raise SettingsError(
                f"--size {chosen}: the file fixes {sides[0]} as height and {sides[1]} as width; give a size that fits"
            )
        fixed = chosen
    if fixed.height % SIZE_MULTIPLE or fixed.width % SIZE_MULTIPLE:
        raise BundleError(
            f"the network takes {fixed}; a bundle holds sizes in multiples of {SIZE_MULTIPLE}, so export it again with "
            "such a size"
        )
    return fixed


def _make_static(model: Any, image: Any, size: InputSize, *, nhwc: bool) -> None:
    sides = [size.height, size.width]
    try:
        model.reshape({image.output(0): [1, *sides, _CHANNELS] if nhwc else [1, _CHANNELS, *sides]})
        fold_constants(model)
    except RuntimeError as error:
        last = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        raise BundleError(
            f"the network cannot take one picture of {size}: {last}; give the size that it was exported with"
        ) from error


def _form(value: Any, size: InputSize) -> OutputForm:
    """Tell how the output becomes a mask."""
    given = value.get_partial_shape()
    if given.is_dynamic:
        raise BundleError(f"the shape of the output is {given} even for a picture of {size}, expected a mask")
    dims = tuple(value.get_shape())
    if not value.get_element_type().is_real():
        raise BundleError(
            f"the network returns {value.get_element_type().get_type_name()}, such as the number of a class, expected "
            "a mask with soft edges; export it without its last step"
        )
    axis = _channel_axis(dims)
    channels = 1 if axis is None else dims[axis]
    if channels not in (1, _TWO) or len(dims) < _PLANE or np.prod(dims) != channels * np.prod(_plane(dims, axis)):
        raise BundleError(
            f"the network returns {list(dims)}, expected a mask: [1, 1, height, width], or two channels. Choose "
            "another output with --output-name, or export the network again"
        )
    plane = InputSize(*_plane(dims, axis))
    if plane.height * size.width != plane.width * size.height:
        raise BundleError(f"the output is {plane} for a picture of {size}, which has other proportions")
    if channels == 1:
        return OutputForm(dims, axis, "only", plane, size)
    return OutputForm(dims, axis, "second" if value_range(value).is_probability else "difference", plane, size)


def _channel_axis(dims: Sequence[int]) -> int | None:
    if len(dims) < _RANK:
        return None
    return 3 if dims[3] in (1, _TWO) and dims[1] not in (1, _TWO) else 1


def _plane(dims: Sequence[int], axis: int | None) -> tuple[int, int]:
    sides = [side for index, side in enumerate(dims) if index != axis][-_PLANE:]
    return int(sides[0]), int(sides[1])


def _rebuilt(model: Any, value: Any, form: OutputForm, *, nhwc: bool) -> Any:
    """The network between a new input and a new output."""
    ops = ov.opset13
    (old,) = [parameter for parameter in model.get_parameters() if parameter.output(0).get_target_inputs()]
    image = ops.parameter([1, _CHANNELS, form.size.height, form.size.width], ov.Type.f32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    fed = ops.transpose(image, ops.constant(np.array([0, 2, 3, 1], np.int64))) if nhwc else image
    result = ops.result(form.in_graph(value))
    old.output(0).replace(fed.output(0))
    result.output(0).get_tensor().set_names({"mask"})
    return ov.Model([result], [image], model.get_friendly_name())


def _channel(value: Any, axis: int, index: int) -> Any:
    return ov.opset13.slice(
        value, *(ov.opset13.constant(np.array([number], np.int64)) for number in (index, index + 1, 1, axis))
    )


def _enlarged(plane: Floats, axis: int, length: int) -> Floats:
    """Resize along one axis, linearly between the centres of pixels, as the node in the graph does."""
    given = plane.shape[axis]
    if given == length:
        return plane
    at = np.clip((np.arange(length) + 0.5) * given / length - 0.5, 0, given - 1)
    low = np.floor(at).astype(int)
    part = np.expand_dims((at - low).astype(np.float32), 1 - axis)
    one, other = np.take(plane, low, axis), np.take(plane, np.minimum(low + 1, given - 1), axis)
    return np.asarray(one + (other - one) * part, np.float32)
