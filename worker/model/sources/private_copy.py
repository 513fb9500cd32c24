"""Copy a variant that somebody may write to into the cache, before a worker maps it.

OpenVINO maps the weights and reads parts of them for as long as the model lives. `cp new.bin old.bin` writes into the
mapped file: a running worker would answer with other weights and still report the digest of the old ones, and a file
that becomes shorter ends the worker by SIGBUS. So a worker maps only files that maskmill alone writes, each once.

    CACHE/bundles/local/.lock
    CACHE/bundles/local/{digest}/NAME_512x512_int8.xml, .bin

Copies share their blocks with the original where the file system can (Btrfs, XFS). A copy that
no process has been started with for `KEPT_SECONDS` is deleted when the next one is made or found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

from worker.contract.errors import DigestMismatch
from worker.contract.log_fields import event
from worker.model.format.manifest import sha256_of, variant_digest
from worker.model.format.variant import Bundle, Variant
from worker.model.sources.bundle_sources import builtin_root
from worker.processes.filelock import locked

log = logging.getLogger(__name__)

_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""

_OWN = ("bundles", "networks")
"""Folders of the cache whose files are written once, under a temporary name."""

_PART = ".part"

KEPT_SECONDS = 30 * 86_400.0
"""Time since its last use after which a copy is deleted. A process that still runs with it keeps its mapped files; one
that starts again makes the copy anew."""

_COPY = re.compile(rf"[0-9a-f]{{{_FOLDER_DIGITS}}}")


def private_copy(bundle: Bundle, cache_dir: Path) -> Bundle:
    """Return a bundle whose files nobody else writes to: itself if it lies in the cache or the package, else a copy.

    If the cache cannot be written, the files are used where they are, with a warning.

    Args:
        bundle: verified.
        cache_dir: of the model settings.

    Raises:
        DigestMismatch: the files changed while they were copied.
        BundleError: a file cannot be read.
    """
    cache_dir = cache_dir.expanduser()
    variant = bundle.variant
    folders = [builtin_root(), *(cache_dir / name for name in _OWN)]
    if any(variant.bin.resolve().is_relative_to(folder.resolve()) for folder in folders):
        return bundle
    home = cache_dir / "bundles" / "local"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            root = home / variant.digest[:_FOLDER_DIGITS]
            own = replace(bundle, variant=_copied(variant, root))
            os.utime(root)
            _delete_unused(home)
            return own
    except OSError as error:
        reason = error.strerror or error
        warning = (
            f"{bundle.source} is used in place, because {error.filename or home} cannot be written ({reason}): do not "
            "write to its files while a worker runs, or set MASKMILL_MODEL__CACHE_DIR to a writable folder"
        )
        return replace(bundle, warnings=(*bundle.warnings, warning))


def _copied(variant: Variant, root: Path) -> Variant:
    root.mkdir(exist_ok=True)
    own = replace(variant, xml=root / variant.xml.name, bin=root / variant.bin.name)
    if not _is_intact(own):
        for source, target in ((variant.xml, own.xml), (variant.bin, own.bin)):
            part = target.with_name(target.name + _PART)
            try:
                _copy(source, part)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        if not _is_intact(own):
            raise DigestMismatch(
                f"{variant.xml} or {variant.bin.name} changed while it was copied; start again once it is complete"
            )
    return own


def _delete_unused(home: Path) -> None:
    """Delete the copies that were last used `KEPT_SECONDS` ago or earlier. Their time of change is that of last use."""
    oldest = time.time() - KEPT_SECONDS
    for folder in home.iterdir():
        if _COPY.fullmatch(folder.name) and not folder.is_symlink() and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder)
            log.info("not used for long", extra=event("bundle_copy_deleted", folder=str(folder)))


def _is_intact(variant: Variant) -> bool:
    if not (variant.xml.is_file() and variant.bin.is_file()):
        return False
    return variant_digest(sha256_of(variant.xml), sha256_of(variant.bin)) == variant.digest


def _copy(source: Path, target: Path) -> None:
    """Copy a file; `copy_file_range` lets file systems that can share its blocks."""
    with source.open("rb") as reader, target.open("wb") as writer, contextlib.suppress(OSError):
        while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
            pass
    if target.stat().st_size != source.stat().st_size:  # not between these two file systems
        shutil.copyfile(source, target)
