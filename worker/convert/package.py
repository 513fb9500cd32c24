"""Writes a bundle: IR files in one folder per precision, and the `manifest.json` that vouches for them.

    bundle/
      manifest.json
      openvino_fp32/contrast_320x320_fp32.xml, .bin

All or nothing (see `staging`). Same models, same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from worker.contract.errors import BundleError
from worker.model.format import writer
from worker.model.format.layout import Candidate


def write_bundle(
    dest: Path,
    name: str,
    models: Mapping[tuple[int, str], ov.Model],
    *,
    description: str,
    license: str,
    source: Mapping[str, Any],
    tools: Mapping[str, str] | None = None,
) -> Path:
    """Write a bundle, replacing one that is there.

    Args:
        dest: folder of the bundle; absent, empty or a bundle.
        name: of the model, the first part of the file names.
        models: (side in pixels, precision) -> network, saved as it is: fp16 compression is the converter's choice.
        description: one sentence for people.
        license: SPDX expression.
        source: where the network comes from (JSON).
        tools: versions of what else made it, beside OpenVINO's.

    Returns:
        `dest`, absolute.

    Raises:
        BundleError: no model, a precision unknown, `dest` is something else, or the disk refuses. What was at `dest`
            is then still there.
    """
    dest = dest.absolute()
    writer.check_precisions(dest, {precision for _, precision in models})
    with writer.staged(dest) as made:
        for (size, precision), model in models.items():
            _save(model, made / Candidate(name, size, precision).xml)
        writer.write_bundle_manifest(
            made,
            name,
            description=description,
            license=license,
            source=source,
            tools={"openvino": openvino_version(), **(tools or {})},
        )
    return dest


def openvino_version() -> str:
    """As the package index names it: `2026.4.1`, without build number and commit."""
    return str(ov.__version__).split("-", 1)[0]


def _save(model: ov.Model, xml: Path) -> None:
    xml.parent.mkdir(exist_ok=True)
    try:
        ov.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:  # what OpenVINO raises when it cannot write
        raise BundleError(f"{xml.name} cannot be written: {error}; what was there still is") from error
