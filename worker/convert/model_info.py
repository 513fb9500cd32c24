"""Section `model_info` of an IR, from which model_api and the inference engine read how to feed the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from worker.contract.errors import BundleError
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import core, ov

_MODEL_INFO = {
    "model_type": "Segmentation",
    "input_dtype": "f32",
    "mean_values": " ".join(map(str, IMAGENET_MEAN)),
    "scale_values": " ".join(map(str, IMAGENET_SCALE)),
    "reverse_input_channels": "False",
    "resize_type": "standard",
    "embedded_processing": "False",
    "labels": "background foreground",
    "return_soft_prediction": "True",
    "soft_threshold": "0.5",
}
"""Keys of OpenVINO's model_api; mean and scale are on the scale 0 to 255."""


def write_model_info(model: ov.Model, facts: Mapping[str, str] = MappingProxyType({})) -> None:
    """Add the section to a network that takes ImageNet-normalised RGB and returns logits.

    Args:
        model: changed in place.
        facts: further keys, for people.
    """
    for key, value in {**_MODEL_INFO, **facts}.items():
        model.set_rt_info(value, ["model_info", key])


def read_model_info(xml: Path) -> dict[str, str]:
    """Return keys and values, sorted by key; empty if the IR has no such section.

    Args:
        xml: graph of a variant whose digest was verified.

    Raises:
        BundleError: OpenVINO cannot read the file.
    """
    try:
        model = core().read_model(str(xml))
    except (RuntimeError, UnicodeError) as error:  # a message may quote bytes of the file that are no text
        raise BundleError(f"{xml} cannot be read as a network: {error}; convert it again") from error
    if not model.has_rt_info(["model_info"]):
        return {}
    return {str(key): str(value) for key, value in sorted(model.get_rt_info(["model_info"]).value.items())}
