"""Guard the cache of compiled models against concurrent writers and damaged files.

OpenVINO writes its `.blob` in place and trusts it when reading. Therefore one process fills an empty folder while the
others wait, and a blob may be read only while its SHA-256 matches the one recorded when it was written.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from worker.contract.log_fields import event
from worker.model.format.manifest import sha256_of
from worker.processes import filelock

log = logging.getLogger(__name__)

_DIGEST_SUFFIX = ".sha256"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder` while the block compiles a model with it as OpenVINO's CACHE_DIR.

    The lock is exclusive for the process that fills the folder, and shared for the processes that read it afterwards.

    Raises:
        OSError: the folder cannot be written.
        BundleError: a blob in it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = folder / ".lock"
    with filelock.locked(lock, shared=True):
        if _is_valid(folder):
            yield
            return
    with filelock.locked(lock):
        if not _is_valid(folder):  # another process may have filled it meanwhile
            _clear(folder)
            yield
            _record_digests(folder)
            return
    with filelock.locked(lock, shared=True):
        yield


def _is_valid(folder: Path) -> bool:
    """Whether the folder has blobs, each with the digest recorded for it."""
    blobs = list(folder.glob("*.blob"))
    return bool(blobs) and all(_matches_record(blob) for blob in blobs)


def _matches_record(blob: Path) -> bool:
    record = blob.with_name(blob.name + _DIGEST_SUFFIX)
    return record.exists() and record.read_text() == sha256_of(blob)


def _clear(folder: Path) -> None:
    for blob in folder.glob("*.blob"):
        log.warning("damaged or incomplete: compiling again", extra=event("compiled_cache_corrupt", file=str(blob)))
        blob.unlink()
    for record in folder.glob(f"*.blob{_DIGEST_SUFFIX}"):
        record.unlink()


def _record_digests(folder: Path) -> None:
    for blob in folder.glob("*.blob"):
        blob.with_name(blob.name + _DIGEST_SUFFIX).write_text(sha256_of(blob))
