"""Bring one variant of a bundle from S3 into the cache, whole or not at all.

Several processes of one node start at once: one fetches under a file lock, the others wait and find it there. A file
is downloaded under a temporary name and gets its own only when its digest is right, so that after an interruption
the files already complete are kept and the rest is fetched again.

    CACHE/bundles/{source}/.lock
    CACHE/bundles/{source}/{digest}/openvino_int8/NAME_512x512_int8.xml, .bin
    CACHE/bundles/{source}/{digest}/manifest.json    or fetched.json: digests taken at download, where S3 has none
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, ObjectMissing
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo
from worker.model.format.layout import MANIFEST_NAME, Candidate
from worker.model.format.manifest import (
    MAX_MANIFEST_BYTES,
    FileFacts,
    Manifest,
    described,
    read_manifest,
    sha256_of,
    variant_digest,
    verified_sha256,
)
from worker.model.sources.progress import Progress, watched
from worker.processes.filelock import locked

logger = logging.getLogger(__name__)

_RECORD_NAME = "fetched.json"
_PART = ".part"
_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name: 64 bits, ample for the handful of bundles on a node."""


class Objects(Protocol):
    """What is needed of the S3 port; `worker.contract.storage.s3.ObjectStore` fits."""

    def list(self, folder: S3Url) -> Iterator[ObjectInfo]:
        """Every object under a folder, keys relative to it."""
        ...

    def download(self, place: S3Url, path: Path) -> None:
        """Stream one object to a file."""
        ...


@dataclass(frozen=True)
class Remote:
    """A bundle in S3: where, and what the listing said of its files (path relative to the root -> facts)."""

    url: S3Url
    files: Mapping[str, ObjectInfo]


@dataclass(frozen=True)
class Fetched:
    """A variant in the cache."""

    root: Path
    manifest: Manifest
    """The bundle's own, or, where it has none, the digests noted when the files were downloaded."""


@dataclass(frozen=True)
class _Job:
    remote: Remote
    objects: Objects
    progress: Progress | None


def fetch(
    remote: Remote, candidate: Candidate, cache_dir: Path, objects: Objects, progress: Progress | None = None
) -> Fetched:
    """Make sure that the variant is in the cache.

    Files found in the cache are not looked at here: the store verifies them as it does every bundle.

    Args:
        remote: the bundle, listed.
        candidate: which of its variants.
        cache_dir: of the model settings.
        objects: the S3 port.
        progress: told how far each download is.

    Raises:
        DigestMismatch: what S3 holds is not what the manifest describes.
        BundleError: the manifest cannot be read, or the cache cannot be written.
        BundleNotFound: an object went away after the listing.
        ServiceError: from the S3 port.
    """
    source_id = hashlib.sha256(str(remote.url).encode()).hexdigest()[:_FOLDER_DIGITS]
    home = cache_dir / "bundles" / source_id
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            return _fetch_locked(_Job(remote, objects, progress), candidate, home)
    except OSError as error:
        raise BundleError(
            f"cannot write {error.filename or home}: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR to a folder that "
            "is writable and has room"
        ) from error
    except ObjectMissing as error:
        raise BundleNotFound(
            f"{error}, though it was listed a moment ago; start again when the upload is over"
        ) from error


def _fetch_locked(job: _Job, candidate: Candidate, home: Path) -> Fetched:
    remote = job.remote
    manifest = _fetch_manifest(job, home) if MANIFEST_NAME in remote.files else None
    root = home / _identity(remote, candidate, manifest)[:_FOLDER_DIGITS]
    folder = (root / candidate.xml).parent
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"*{_PART}*"):  # left by a process that was killed; nobody else is here under the lock
        stale.unlink()
    if manifest:
        (home / MANIFEST_NAME).replace(root / MANIFEST_NAME)
        for name in (candidate.xml, candidate.bin):
            if not (root / name).exists():
                _fetch_file(job, name, root, manifest)
        return Fetched(root, manifest)
    record = root / _RECORD_NAME
    noted = read_manifest(record) if record.exists() else Manifest(schema_version=1, name=candidate.name, files={})
    for name in (candidate.xml, candidate.bin):
        if not (root / name).exists():
            noted = _fetch_noting(job, name, root, noted)
    return Fetched(root, noted)


def _identity(remote: Remote, candidate: Candidate, manifest: Manifest | None) -> str:
    """Digest that names the variant before it is here; without a manifest ETags and sizes must do."""
    names = (candidate.xml, candidate.bin)
    if manifest:
        return variant_digest(*(described(manifest, name).sha256 for name in names))
    facts = "".join(f"{name} {remote.files[name].etag} {remote.files[name].size}\n" for name in names)
    return hashlib.sha256(facts.encode()).hexdigest()


def _fetch_manifest(job: _Job, home: Path) -> Manifest:
    remote = job.remote
    if remote.files[MANIFEST_NAME].size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{remote.url / MANIFEST_NAME} is too large to be the manifest of a bundle")
    path = home / MANIFEST_NAME
    job.objects.download(remote.url / MANIFEST_NAME, path)
    try:
        return read_manifest(path)
    except BundleError:
        path.unlink()
        raise


def _fetch_file(job: _Job, name: str, root: Path, manifest: Manifest) -> None:
    remote = job.remote
    described_bytes, listed_bytes = described(manifest, name).bytes, remote.files[name].size
    if described_bytes != listed_bytes:
        raise DigestMismatch(
            f"{remote.url / name}: expected {described_bytes} bytes, S3 holds {listed_bytes}; upload the bundle again"
        )
    with _download(job, name, root) as part:
        verified_sha256(manifest, name, part, remedy=f"{remote.url / name} is damaged: upload the bundle again")


def _fetch_noting(job: _Job, name: str, root: Path, noted: Manifest) -> Manifest:
    """Download without a manifest; the digest is noted before the file gets its name."""
    with _download(job, name, root) as part:
        facts = FileFacts(sha256=sha256_of(part), bytes=part.stat().st_size)
        noted = noted.model_copy(update={"files": {**noted.files, name: facts}})
        text = root / f"{_RECORD_NAME}{_PART}"
        text.write_text(noted.model_dump_json(indent=1))
        text.replace(root / _RECORD_NAME)
    return noted


@contextlib.contextmanager
def _download(job: _Job, name: str, root: Path) -> Iterator[Path]:
    """Yield the downloaded file under a temporary name; it gets its own when the block ends well, else it goes."""
    remote = job.remote
    target = root / name
    part = target.with_name(target.name + _PART)
    logger.info(
        "event=model_fetched fetching %s (%d bytes) into %s", remote.url / name, remote.files[name].size, target
    )
    try:
        with watched(part, name, remote.files[name].size, job.progress):
            job.objects.download(remote.url / name, part)
        if part.stat().st_size != remote.files[name].size:
            raise DigestMismatch(
                f"{remote.url / name}: expected {remote.files[name].size} bytes as listed, got {part.stat().st_size}; "
                "start again when nobody is uploading"
            )
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
