"""Writes a bundle: IR files in one folder per precision, and the `manifest.json` that vouches for them.

    bundle/
      manifest.json
      openvino_fp32/contrast_320x320_fp32.xml, .bin

All or nothing: files are made in a folder beside the destination, which is then renamed. Same models, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from worker.contract.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8", "int8wo")
"""Stored precisions; each has the folder `openvino_{precision}`."""

_FOLDER_MODE = 0o755
"""Of the bundle: temporary folders are made for their owner alone."""


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
    _check(dest, models)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    except OSError as error:
        raise BundleError(f"bundle {dest} cannot be written: {error}; choose another folder") from error
    try:
        for (size, precision), model in models.items():
            _save(model, made / f"openvino_{precision}" / f"{name}_{size}x{size}_{precision}.xml")
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "description": description,
            "license": license,
            "files": _facts(made),
            "source": dict(source),
            "tools": {"openvino": openvino_version(), **(tools or {})},
        }
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        made.chmod(_FOLDER_MODE)
        _put_in_place(made, dest)
    except (OSError, RuntimeError) as error:  # OpenVINO raises RuntimeError when it cannot write
        raise BundleError(f"bundle {dest} cannot be written: {error}; what was there still is") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return dest


def openvino_version() -> str:
    """As the package index names it: `2026.4.1`, without build number and commit."""
    return str(ov.__version__).split("-", 1)[0]


def _check(dest: Path, models: Mapping[tuple[int, str], ov.Model]) -> None:
    if not models:
        raise BundleError(f"bundle {dest}: no model to write")
    unknown = sorted({precision for _, precision in models} - set(PRECISIONS))
    if unknown:
        raise BundleError(f"bundle {dest}: no such precision: {', '.join(unknown)}; known: {', '.join(PRECISIONS)}")
    if dest.exists() and not (dest / MANIFEST).is_file() and (not dest.is_dir() or any(dest.iterdir())):
        raise BundleError(f"{dest} is there and is no bundle: it is not replaced; choose another folder or remove it")


def _save(model: ov.Model, xml: Path) -> None:
    xml.parent.mkdir(exist_ok=True)
    ov.save_model(model, xml, compress_to_fp16=False)


def _facts(folder: Path) -> dict[str, dict[str, str | int]]:
    """SHA-256 and size of every file, by its path relative to the bundle, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in files
    }


def _put_in_place(made: Path, dest: Path) -> None:
    """Rename; a folder that has files cannot be renamed over, so the old one steps aside and comes back on failure."""
    if not dest.exists():
        made.rename(dest)
        return
    aside = made.with_name(f"{made.name}.old")
    dest.rename(aside)
    try:
        made.rename(dest)
    except OSError:
        aside.rename(dest)
        raise
    shutil.rmtree(aside)
