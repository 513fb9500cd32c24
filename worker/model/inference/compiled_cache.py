"""The folder in which OpenVINO keeps a compiled model, made safe for many processes and for damage.

OpenVINO writes its `.blob` in place and trusts it when reading. So one process fills an empty folder while the others
wait, and a blob is only offered for reading while its SHA-256 is the one noted when it was written.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from worker.contract.log_fields import event
from worker.model.format.manifest import sha256_of
from worker.processes.filelock import locked

log = logging.getLogger(__name__)

_NOTE = ".sha256"


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait for this process's turn to compile with `folder` as CACHE_DIR.

    The first one holds the folder alone; once it is filled, any number read it side by side.

    Raises:
        OSError: the folder cannot be written.
        BundleError: a blob in it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = folder / ".lock"
    with locked(lock, shared=True):
        if _is_sound(folder):
            yield
            return
    with locked(lock):
        if not _is_sound(folder):  # unless another was first
            _clear(folder)
            yield
            _note_digests(folder)
            return
    with locked(lock, shared=True):
        yield


def _is_sound(folder: Path) -> bool:
    """Whether there are blobs, each as it was written."""
    blobs = list(folder.glob("*.blob"))
    return bool(blobs) and all(_is_as_noted(blob) for blob in blobs)


def _is_as_noted(blob: Path) -> bool:
    note = blob.with_name(blob.name + _NOTE)
    return note.exists() and note.read_text() == sha256_of(blob)


def _clear(folder: Path) -> None:
    for blob in folder.glob("*.blob"):
        log.warning("damaged or incomplete: compiling again", extra=event("compiled_cache_corrupt", file=str(blob)))
        blob.unlink()


def _note_digests(folder: Path) -> None:
    for blob in folder.glob("*.blob"):
        blob.with_name(blob.name + _NOTE).write_text(sha256_of(blob))
