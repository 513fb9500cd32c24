"""Copy a variant that somebody may write to into the cache, before a worker maps it.

OpenVINO maps the weights and reads parts of them for as long as the model lives. `cp new.bin old.bin` writes into the
mapped file: a running worker would answer with other weights and still report the digest of the old ones, and a file
that becomes shorter ends the worker by SIGBUS. So a worker maps only files that maskmill alone writes, each once.

    CACHE/bundles/local/.lock
    CACHE/bundles/local/{digest}/NAME_512x512_int8.xml, .bin

Copies share their blocks with the original where the file system can (Btrfs, XFS). They stay until they are deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from worker.contract.errors import DigestMismatch
from worker.model.format.manifest import sha256_of, variant_digest
from worker.model.format.variant import Bundle, Variant
from worker.model.sources.bundle_sources import builtin_root
from worker.processes.filelock import locked

_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""

_OWN = ("bundles", "networks")
"""Folders of the cache whose files are written once, under a temporary name."""

_PART = ".part"


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
            return replace(bundle, variant=_copied(variant, home / variant.digest[:_FOLDER_DIGITS]))
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
