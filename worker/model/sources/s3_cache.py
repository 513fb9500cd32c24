"""Fetch one variant of a bundle from S3 into the cache.

Several processes of a node start at the same time: one fetches under a file lock, the others wait and find the files
in the cache. A file is downloaded under a temporary name and renamed once its digest is right. After an interruption
the complete files are therefore kept, and the others are fetched again.

    CACHE/bundles/{source}/.lock
    CACHE/bundles/{source}/{digest}/openvino_int8/NAME_512x512_int8.xml, .bin
    CACHE/bundles/{source}/{digest}/manifest.json    or fetched.json: digests recorded at download if S3 has none
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, ObjectMissing
from worker.contract.log_fields import event
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo
from worker.model.format.layout import MANIFEST_NAME, Candidate
from worker.model.format.manifest import (
    SCHEMA_VERSION,
    BundleManifest,
    FileFacts,
    check_manifest_size,
    read_bundle_manifest,
    sha256_of,
    variant_digest,
    verified_sha256,
)
from worker.model.sources.progress import OnProgress, byte_counter
from worker.processes.filelock import locked

log = logging.getLogger(__name__)

_RECORD_NAME = "fetched.json"
_PART = ".part"
_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name: 64 bits, ample for the handful of bundles on a node."""


class Objects(Protocol):
    """The part of the S3 port that is needed here, as `worker.contract.storage.s3.ObjectStore` has it."""

    def list(self, folder: S3Url) -> Iterator[ObjectInfo]:
        """List every object under a folder, with keys relative to it."""
        ...

    def download(self, place: S3Url, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Stream one object to a file; `on_bytes` gets the size of each block."""
        ...


@dataclass(frozen=True)
class S3Bundle:
    """A listed bundle in S3."""

    url: S3Url
    files: Mapping[str, ObjectInfo]
    """Path relative to the root -> facts from the listing."""

    def size_of(self, name: str) -> int:
        """Return the size of a file in bytes.

        Raises:
            BundleError: the server lists objects without their size.
        """
        size = self.files[name].size
        if size is None:
            raise BundleError(f"{self.url / name}: the server lists it without a size; copy the bundle to a folder")
        return size


@dataclass(frozen=True)
class CachedVariant:
    """A variant in the cache, not yet verified."""

    root: Path
    manifest: BundleManifest
    """The manifest of the bundle; if it has none, the digests recorded when the files were downloaded."""


@dataclass(frozen=True)
class _Download:
    bundle: S3Bundle
    objects: Objects
    on_progress: OnProgress | None


def fetch(
    bundle: S3Bundle, candidate: Candidate, cache_dir: Path, objects: Objects, on_progress: OnProgress | None = None
) -> CachedVariant:
    """Return a variant in the cache, downloading the files that are missing.

    Files that are already in the cache are not read here: the caller verifies them, as for every kind of source.

    Args:
        bundle: the bundle, listed.
        candidate: the variant to fetch.
        cache_dir: of the model settings.
        objects: the S3 port.
        on_progress: called while files download.

    Raises:
        DigestMismatch: the content in S3 does not match the manifest.
        BundleError: the manifest cannot be read, or the cache cannot be written.
        BundleNotFound: an object disappeared after the listing.
        ServiceError: from the S3 port.
    """
    source_id = hashlib.sha256(str(bundle.url).encode()).hexdigest()[:_FOLDER_DIGITS]
    home = cache_dir / "bundles" / source_id
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            return _fetch_locked(_Download(bundle, objects, on_progress), candidate, home)
    except OSError as error:
        raise BundleError(
            f"cannot write {error.filename or home}: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR to a writable "
            "folder with enough space"
        ) from error
    except ObjectMissing as error:
        raise BundleNotFound(
            f"{error}, although it was listed a moment ago; start again once the upload is complete"
        ) from error


def _fetch_locked(download: _Download, candidate: Candidate, home: Path) -> CachedVariant:
    manifest = _fetch_manifest(download, home) if MANIFEST_NAME in download.bundle.files else None
    root = home / _variant_id(download.bundle, candidate, manifest)[:_FOLDER_DIGITS]
    folder = (root / candidate.xml).parent
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"*{_PART}*"):  # left by a killed process: the lock excludes a running one
        stale.unlink()
    if manifest:
        (home / MANIFEST_NAME).replace(root / MANIFEST_NAME)
        for name in _missing(root, candidate):
            _fetch_file(download, name, root, manifest)
        return CachedVariant(root, manifest)
    record = _read_record(root, candidate)
    for name in _missing(root, candidate):
        record = _fetch_and_record(download, name, root, record)
    return CachedVariant(root, record)


def _missing(root: Path, candidate: Candidate) -> list[str]:
    return [name for name in (candidate.xml, candidate.bin) if not (root / name).exists()]


def _read_record(root: Path, candidate: Candidate) -> BundleManifest:
    path = root / _RECORD_NAME
    if path.exists():
        return read_bundle_manifest(path)
    return BundleManifest(schema_version=SCHEMA_VERSION, name=candidate.name, files={})


def _variant_id(bundle: S3Bundle, candidate: Candidate, manifest: BundleManifest | None) -> str:
    """Digest that identifies the variant before the download; without a manifest, of ETags and sizes."""
    names = (candidate.xml, candidate.bin)
    if manifest:
        return variant_digest(*(manifest.facts_of(name).sha256 for name in names))
    infos = {name: bundle.files[name] for name in names}
    facts = "".join(f"{name} {info.etag or info.modified} {info.size}\n" for name, info in infos.items())
    return hashlib.sha256(facts.encode()).hexdigest()


def _fetch_manifest(download: _Download, home: Path) -> BundleManifest:
    url = download.bundle.url / MANIFEST_NAME
    check_manifest_size(download.bundle.size_of(MANIFEST_NAME), str(url))
    path = home / MANIFEST_NAME
    download.objects.download(url, path)
    try:
        return read_bundle_manifest(path)
    except BundleError:
        path.unlink()
        raise


def _fetch_file(download: _Download, name: str, root: Path, manifest: BundleManifest) -> None:
    url = download.bundle.url / name
    described_bytes, listed_bytes = manifest.facts_of(name).bytes, download.bundle.size_of(name)
    if described_bytes != listed_bytes:
        raise DigestMismatch(
            f"{url}: expected {described_bytes} bytes, S3 holds {listed_bytes}; upload the bundle again"
        )
    with _downloaded(download, name, root) as part:
        verified_sha256(manifest, name, part, remedy=f"{url} is damaged: upload the bundle again")


def _fetch_and_record(download: _Download, name: str, root: Path, record: BundleManifest) -> BundleManifest:
    """Download a file of a bundle without a manifest; its digest is recorded before the file gets its name."""
    with _downloaded(download, name, root) as part:
        facts = FileFacts(sha256=sha256_of(part), bytes=part.stat().st_size)
        record = record.model_copy(update={"files": {**record.files, name: facts}})
        text = root / f"{_RECORD_NAME}{_PART}"
        text.write_text(record.model_dump_json(indent=1))
        text.replace(root / _RECORD_NAME)
    return record


@contextlib.contextmanager
def _downloaded(download: _Download, name: str, root: Path) -> Iterator[Path]:
    """Yield a downloaded file under a temporary name; rename it if the block succeeds, else remove it."""
    remote = download.bundle
    size = remote.size_of(name)
    target = root / name
    part = target.with_name(target.name + _PART)
    log.info(
        "fetching from S3",
        extra=event(
            "model_fetch_started", source=str(remote.url / name), bytes=remote.size_of(name), target=str(target)
        ),
    )
    try:
        download.objects.download(remote.url / name, part, byte_counter(name, size, download.on_progress))
        if part.stat().st_size != size:
            raise DigestMismatch(
                f"{remote.url / name}: expected {size} bytes as listed, got {part.stat().st_size}; start again once "
                "the upload is complete"
            )
        if download.on_progress:
            download.on_progress(name, size, size)
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
