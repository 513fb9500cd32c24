"""Publish a bundle atomically: build it in a folder beside its destination, then rename that folder.

`worker.convert.package` writes models from memory; `worker.convert.variants` has each model written by a separate
process. This module knows nothing of OpenVINO.
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
from worker.model.format.layout import MANIFEST_NAME, PRECISIONS
from worker.model.format.manifest import SCHEMA_VERSION, FileFacts, sha256_of

_FOLDER_MODE = 0o755
"""Mode of the bundle's folder: `mkdtemp` makes folders that only their owner may read."""


@contextlib.contextmanager
def staged(dest: Path) -> Iterator[Path]:
    """Yield a folder to build a bundle in; it replaces `dest` if the block succeeds, and is removed if it fails.

    Args:
        dest: absolute path of the bundle; absent, empty or a bundle.

    Raises:
        BundleError: `dest` is something else, or the disk refuses. The previous content of `dest` is then unchanged.
    """
    check_destination(dest)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))
    except OSError as error:
        raise BundleError(f"bundle {dest} cannot be written: {error}; choose another folder") from error
    try:
        yield made
        made.chmod(_FOLDER_MODE)
        _move_into_place(made, dest)
    except OSError as error:
        raise BundleError(f"bundle {dest} cannot be written: {error}; its previous content is unchanged") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_destination(dest: Path) -> None:
    """Check that a bundle may be written to `dest`.

    Raises:
        BundleError: `dest` exists and is neither an empty folder nor a bundle.
    """
    if dest.exists() and not (dest / MANIFEST_NAME).is_file() and (not dest.is_dir() or any(dest.iterdir())):
        raise BundleError(
            f"{dest} exists and is not a bundle; refusing to overwrite it: choose another folder or remove it"
        )


def check_precisions(dest: Path, precisions: Collection[str]) -> None:
    """Check that there is something to write, in known precisions.

    Raises:
        BundleError: `precisions` is empty or contains an unknown one.
    """
    if not precisions:
        raise BundleError(f"bundle {dest}: no model to write")
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise BundleError(f"bundle {dest}: no such precision: {', '.join(unknown)}; known: {', '.join(PRECISIONS)}")


def write_bundle_manifest(
    folder: Path,
    name: str,
    *,
    description: str,
    license: str,
    source: Mapping[str, Any],
    tools: Mapping[str, str],
    **more: Any,
) -> None:
    """Write the `manifest.json` of a bundle, covering every file in the folder.

    Args:
        folder: of the bundle, complete but for the manifest.
        name: of the model.
        description: one sentence for people.
        license: SPDX expression.
        source: what the model was made from (JSON).
        tools: versions of the tools that made it.
        **more: further top-level keys (JSON).
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": description,
        "license": license,
        "files": _file_facts(folder),
        "source": dict(source),
        "tools": dict(tools),
        **more,
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _file_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of every file, sorted by path relative to the bundle."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size).model_dump()
        for path in files
    }


def _move_into_place(made: Path, dest: Path) -> None:
    """Rename `made` to `dest`.

    A folder with files in it cannot be the target of a rename. An old bundle is therefore moved aside first, and moved
    back if the second rename fails.
    """
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
