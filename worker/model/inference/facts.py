"""Read how to feed a network, and what it returns, from the section `model_info` of its IR.

    mean_values, scale_values   per channel, on the 0-255 scale
    input_scaling               fixed | picture_maximum
    output_activation           logits | probability
    output_stretch              none | min_max
    reverse_input_channels      YES: the network takes blue first

The first two and the last are keys of OpenVINO's model_api. `worker model import` writes all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from worker.contract.errors import BundleError

SECTION = "model_info"

_CHANNELS = 3
_TRUE = frozenset({"yes", "true", "1", "on"})
_FALSE = frozenset({"no", "false", "0", "off", ""})
_E = TypeVar("_E", bound=StrEnum)


class InputScaling(StrEnum):
    """What happens to the pixels before the mean is subtracted."""

    FIXED = "fixed"
    """Nothing: a pixel has the same value in every picture."""
    PICTURE_MAXIMUM = "picture_maximum"
    """The picture is scaled so that its largest value is 255, as U²-Net is trained."""


class OutputActivation(StrEnum):
    """What the numbers of the output are."""

    LOGITS = "logits"
    """Any number; the sigmoid is still to be applied."""
    PROBABILITY = "probability"
    """0 to 1: nothing may be applied."""


class OutputStretch(StrEnum):
    """What happens to the mask after the activation."""

    NONE = "none"
    MIN_MAX = "min_max"
    """The mask is stretched to 0..1, as U²-Net and IS-Net expect."""


@dataclass(frozen=True)
class NetworkFacts:
    """The facts that an IR states. A fact that it leaves out is None, or the plain case."""

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    """Per channel in the order in which the network takes them, on the 0-255 scale; both or neither."""
    input_scaling: InputScaling = InputScaling.FIXED
    output_activation: OutputActivation | None = None
    output_stretch: OutputStretch = OutputStretch.NONE
    reverse_input_channels: bool = False
    """Whether the network takes blue first. Pictures are red first."""


def read_facts(model: Any, where: str) -> NetworkFacts:
    """Return the facts of a network.

    Args:
        model: an `openvino.Model`.
        where: the file, for messages.

    Raises:
        BundleError: a fact cannot be used: a number is not finite, a scale is 0, or a word is unknown.
    """
    mean, scale = _numbers(model, where, "mean_values"), _numbers(model, where, "scale_values")
    if (mean is None) != (scale is None) or (scale is not None and 0 in scale):
        raise BundleError(f"{where}: model_info needs both mean_values and scale_values, and no scale may be 0")
    return NetworkFacts(
        mean,
        scale,
        _word(model, where, "input_scaling", InputScaling) or InputScaling.FIXED,
        _word(model, where, "output_activation", OutputActivation),
        _word(model, where, "output_stretch", OutputStretch) or OutputStretch.NONE,
        _flag(model, where, "reverse_input_channels"),
    )


def write_facts(model: Any, facts: NetworkFacts, notes: dict[str, str]) -> None:
    """Write the facts of an imported network, and free texts for people, into its section `model_info`.

    Raises:
        ValueError: mean, scale or activation is missing.
    """
    if facts.mean is None or facts.scale is None or facts.output_activation is None:
        raise ValueError("mean, scale and output activation must be known")
    section = {
        "mean_values": " ".join(f"{value:g}" for value in facts.mean),
        "scale_values": " ".join(f"{value:g}" for value in facts.scale),
        "input_scaling": str(facts.input_scaling),
        "output_activation": str(facts.output_activation),
        "output_stretch": str(facts.output_stretch),
        "reverse_input_channels": "YES" if facts.reverse_input_channels else "NO",
        **notes,
    }
    for key, value in section.items():
        model.set_rt_info(value, [SECTION, key])


def _text(model: Any, key: str) -> str | None:
    path = [SECTION, key]
    return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else None


def _numbers(model: Any, where: str, key: str) -> tuple[float, ...] | None:
    text = _text(model, key)
    if text is None:
        return None
    try:
        values = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if len(values) != _CHANNELS or not all(map(math.isfinite, values)):
        raise BundleError(f"{where}: {key} in model_info is {text!r}, expected three numbers")
    return values


def _word(model: Any, where: str, key: str, kind: type[_E]) -> _E | None:
    text = _text(model, key)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(kind)
        raise BundleError(f"{where}: {key} in model_info is {text!r}, expected one of {known}") from error


def _flag(model: Any, where: str, key: str) -> bool:
    text = (_text(model, key) or "").strip().lower()
    if text not in _TRUE | _FALSE:
        raise BundleError(f"{where}: {key} in model_info is {text!r}, expected YES or NO")
    return text in _TRUE
