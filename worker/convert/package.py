"""Write a bundle: IR files in one folder per precision, and a `manifest.json` with their digests.

    bundle/
      manifest.json
      openvino_fp32/contrast_320x320_fp32.xml, .bin

The bundle is written completely or not at all (see `worker.model.format.writer`). The same models give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.model.format import writer
from worker.model.format.layout import Candidate


def write_bundle(
    dest: Path,
    name: str,
    models: Mapping[tuple[InputSize, str], ov.Model],
    *,
    description: str,
    license: str,
    source: Mapping[str, Any],
    tools: Mapping[str, str] | None = None,
) -> Path:
    """Write a bundle and replace an existing one.

    Args:
        dest: folder of the bundle; absent, empty or a bundle.
        name: name of the model, the first part of the file names.
        models: network by (size, precision). Networks are saved without fp16 compression, which is up to the
            caller.
        description: one sentence for the reader.
        license: SPDX expression.
        source: where the network comes from (JSON).
        tools: versions of other tools that made it; OpenVINO's is added.

    Returns:
        `dest`, absolute.

    Raises:
        BundleError: there is no model, a precision is unknown, `dest` is not a bundle, or the files cannot be written.
            The content of `dest` is then unchanged.
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
    """Return the version as the package index names it: `2026.4.1`, without build number and commit."""
    return str(ov.__version__).split("-", 1)[0]


def _save(model: ov.Model, xml: Path) -> None:
    xml.parent.mkdir(exist_ok=True)
    try:
        ov.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:  # raised by OpenVINO if it cannot write
        raise BundleError(f"{xml.name} cannot be written: {error}; the previous bundle is unchanged") from error
