"""A bundle is whole or not there: it is made in a folder beside its place, which is then renamed.

Used by `package`, which has models in memory, and by `variants`, whose models are written by processes of their own.
Knows nothing of OpenVINO.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.contract.errors import BundleError
from worker.model.format.manifest import sha256_of

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8", "int8wo")
"""Stored precisions; each has the folder `openvino_{precision}`."""

_FOLDER_MODE = 0o755
"""Of the bundle: temporary folders are made for their owner alone."""


@contextlib.contextmanager
def staged(dest: Path) -> Iterator[Path]:
    """A folder to make the bundle in; it takes the place of `dest` when the block ends well, and is removed if not.

    Args:
        dest: absolute path of the bundle; absent, empty or a bundle.

    Raises:
        BundleError: `dest` is something else, or the disk refuses. What was at `dest` is then still there.
    """
    check_place(dest)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    except OSError as error:
        raise BundleError(f"bundle {dest} cannot be written: {error}; choose another folder") from error
    try:
        yield made
        made.chmod(_FOLDER_MODE)
        _put_in_place(made, dest)
    except OSError as error:
        raise BundleError(f"bundle {dest} cannot be written: {error}; what was there still is") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_place(dest: Path) -> None:
    """Make sure that a bundle may be put there.

    Raises:
        BundleError: there is something else.
    """
    if dest.exists() and not (dest / MANIFEST).is_file() and (not dest.is_dir() or any(dest.iterdir())):
        raise BundleError(f"{dest} is there and is no bundle: it is not replaced; choose another folder or remove it")


def check_precisions(dest: Path, precisions: Collection[str]) -> None:
    """Make sure that there is something to write, and that it has a folder.

    Raises:
        BundleError: nothing, or a precision that is not known.
    """
    if not precisions:
        raise BundleError(f"bundle {dest}: no model to write")
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise BundleError(f"bundle {dest}: no such precision: {', '.join(unknown)}; known: {', '.join(PRECISIONS)}")


def write_manifest(
    folder: Path,
    name: str,
    *,
    description: str,
    license: str,
    source: Mapping[str, Any],
    tools: Mapping[str, str],
    **more: Any,
) -> None:
    """Write `manifest.json` over all files that are in the folder; `more` are further keys (JSON)."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": description,
        "license": license,
        "files": _facts(folder),
        "source": dict(source),
        "tools": dict(tools),
        **more,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _facts(folder: Path) -> dict[str, dict[str, str | int]]:
    """SHA-256 and size of every file, by its path relative to the bundle, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files
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
    finally:
        if not dest.exists():  # refused or interrupted
            aside.rename(dest)
    shutil.rmtree(aside, ignore_errors=True)
