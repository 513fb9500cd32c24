"""The section `model_info` of an IR: what model_api and the engine read to feed the network."""

from __future__ import annotations

from pathlib import Path

from worker.contract.errors import BundleError
from worker.model.runtime import ov


def read_model_info(xml: Path) -> dict[str, str]:
    """Keys and values, sorted by key; empty if the IR has no such section.

    Args:
        xml: of a variant whose digest was checked.

    Raises:
        BundleError: OpenVINO cannot read it.
    """
    try:
        model = ov.Core().read_model(str(xml))
    except RuntimeError as error:
        raise BundleError(f"{xml} cannot be read as a network: {error}; convert it again") from error
    if not model.has_rt_info(["model_info"]):
        return {}
    return {str(key): str(value) for key, value in sorted(model.get_rt_info(["model_info"]).value.items())}
