"""The section `model_info` of an IR: what model_api and the engine read to feed the network."""

from __future__ import annotations

from pathlib import Path

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
"""In the words of OpenVINO's model_api; mean and scale on the scale 0 to 255."""


def write_model_info(model: ov.Model) -> None:
    """Write the section for a network that takes ImageNet-normalised RGB and gives logits."""
    for key, value in _MODEL_INFO.items():
        model.set_rt_info(value, ["model_info", key])


def read_model_info(xml: Path) -> dict[str, str]:
    """Keys and values, sorted by key; empty if the IR has no such section.

    Args:
        xml: of a variant whose digest was checked.

    Raises:
        BundleError: OpenVINO cannot read it.
    """
    try:
        model = core().read_model(str(xml))
    except RuntimeError as error:
        raise BundleError(f"{xml} cannot be read as a network: {error}; convert it again") from error
    if not model.has_rt_info(["model_info"]):
        return {}
    return {str(key): str(value) for key, value in sorted(model.get_rt_info(["model_info"]).value.items())}
