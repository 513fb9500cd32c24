"""A folder of this machine as DEST: its outputs lie under a place of its own in the services on this machine.

The same folder always has the same place, so a second job skips what is up to date there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from producer.sources.local import absolute
from worker.contract import local_services
from worker.contract.errors import SettingsError, SourceError
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings
from worker.contract.storage.s3 import is_loopback


def find_folder(dest: str, s3: S3Settings) -> Path | None:
    """Return the folder that DEST names; None for an s3:// URL.

    Raises:
        SettingsError: it is a folder, but the services do not run on this machine; or it is a file.
    """
    if "://" in dest:
        return None
    if not is_loopback(s3.endpoint_url):
        raise SettingsError(
            f"DEST {dest} is a folder of this machine, which needs services on this machine (`maskmill serve`): "
            "give an s3:// prefix, and fetch its outputs with `producer download JOB FOLDER`"
        )
    folder = absolute(Path(dest).expanduser())
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{dest} is a file: give a folder for the outputs")
    return folder


def place_of(folder: Path) -> S3Url:
    """Return the place of a folder's outputs in the services on this machine."""
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name)[:40]
    return S3Url(local_services.BUCKET, f"folders/{readable}-{digest}/")


def refuse_overlap(sources: Iterable[Path], folder: Path) -> None:
    """Refuse a destination that contains pictures or lies among them.

    Raises:
        SettingsError: a source folder contains the destination or lies in it, or a source file lies directly in it.
    """
    dest = folder.resolve()
    for source in sources:
        whole = source.is_dir()
        root = source.resolve() if whole else source.resolve().parent
        if root == dest or (whole and (dest.is_relative_to(root) or root.is_relative_to(dest))):
            raise SettingsError(
                f"{source} and {folder} overlap, so an output could replace a picture: choose a folder of its own, "
                f"such as {root.with_name(root.name + '-masks')}"
            )


def create(folder: Path) -> None:
    """Create the folder, before anything is submitted.

    Raises:
        SourceError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{folder} cannot be created: {error.strerror}") from error
