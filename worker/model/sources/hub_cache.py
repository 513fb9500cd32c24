"""Bundles and checkpoints from the Hugging Face hub, through the cache: `hf://owner/name[@revision]`.

A revision is resolved to a commit, and each file checked against the digest that the hub gives for that commit. A
download that broke off goes on from there, also in another process. What was seen last is noted: a source pinned to a
full commit needs no network once its files are here, and a branch whose hub does not answer is served from the copy
seen last, which is announced.

    CACHE/bundles/{source}/.lock
    CACHE/bundles/{source}/hub.json                  the commit seen last, its files and their digests
    CACHE/bundles/{source}/{digest}/openvino_int8/NAME_512x512_int8.xml, .bin; manifest.json
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, HubUnavailable
from worker.contract.log_fields import event
from worker.model.format.manifest import MAX_MANIFEST_BYTES, FileFacts, Manifest, sha256_of
from worker.model.sources import hub_client
from worker.model.sources.hub_client import HubFile, HubSource, Snapshot
from worker.model.sources.progress import Progress, watched
from worker.processes.filelock import locked

log = logging.getLogger(__name__)

_RECORD_NAME = "hub.json"
_PART = ".part"
_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Resolved:
    """A source and the commit it stands for."""

    source: HubSource
    snapshot: Snapshot
    home: Path
    """Folder of the source in the cache."""
    offline: str = ""
    """Why the hub was not asked in the end; empty if it was, or need not be."""


def resolve(source: HubSource, cache_dir: Path) -> Resolved:
    """The commit and its files: from the hub, or what was noted of it.

    Raises:
        HubUnavailable: the hub does not answer, and nothing was noted.
        BundleNotFound, AccessDenied, BundleError: from `hub_client.look`, or the cache cannot be written.
    """
    key = f"{hub_client.endpoint()} {source}"
    home = cache_dir / "bundles" / hashlib.sha256(key.encode()).hexdigest()[:_FOLDER_DIGITS]
    noted = _noted(home / _RECORD_NAME)
    if noted and source.is_pinned:
        return Resolved(source, noted, home)
    try:
        snapshot = hub_client.look(source)
    except HubUnavailable as error:
        if noted is None:
            raise
        return Resolved(source, noted, home, str(error))
    _note(home, snapshot)
    return Resolved(source, snapshot, home)


def bring(resolved: Resolved, names: Sequence[str], progress: Progress | None = None) -> Path:
    """Make sure that these files are in the cache; those that already are, are not looked at here.

    Args:
        resolved: from `resolve`.
        names: paths in the repository. Together they name the folder, so that files of two commits never mix.
        progress: told how far each download is.

    Returns:
        The folder that holds them under these names.

    Raises:
        BundleNotFound: the commit has no such file.
        DigestMismatch: what came is not what the hub describes.
        HubUnavailable: it broke off; what came is kept, to go on from there.
        BundleError: the cache cannot be written.
    """
    snapshot = resolved.snapshot
    missing = [name for name in names if name not in snapshot.files or not _is_plain(name)]
    if missing:
        raise BundleNotFound(f"{snapshot.source} has no file {missing[0]}; correct the name or the revision")
    root = resolved.home / _identity(snapshot, names)[:_FOLDER_DIGITS]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(resolved.home / ".lock"):
            for name in names:
                if not (root / name).exists():
                    _bring_one(resolved, name, root, progress)
    except OSError as error:
        raise _cannot_write(error, root) from error
    return root


def download(repo: str, revision: str | None, filename: str, cache_dir: Path, progress: Progress | None = None) -> Path:
    """One file of a repository, such as a checkpoint, on this disk and verified.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit; None for the main branch.
        filename: path in the repository.
        cache_dir: of the model settings.
        progress: told how far the download is.

    Raises:
        As `resolve`, `bring` and `check`.
    """
    resolved = resolve(HubSource.parse(f"{hub_client.PREFIX}{repo}" + (f"@{revision}" if revision else "")), cache_dir)
    if resolved.offline:
        log.warning(
            "%s; using the copy in the cache",
            resolved.offline,
            extra=event("model_from_cache", commit=resolved.snapshot.commit),
        )
    path = bring(resolved, [filename], progress) / filename
    check(resolved.snapshot.files[filename], path, remedy=f"delete {path}, it will be fetched again")
    return path


def described(resolved: Resolved, root: Path, names: Sequence[str]) -> Manifest:
    """The hub's digests as a manifest, for a repository that has none of its own.

    A file kept in git has no SHA-256 there: it is checked by its git digest here, and its SHA-256 computed.

    Raises:
        DigestMismatch: such a file in the cache is damaged.
    """
    facts = {}
    for name in names:
        file = resolved.snapshot.files[name]
        if file.sha256 is None:
            check(file, root / name, remedy=f"delete {root}, it will be fetched again")
        facts[name] = FileFacts(sha256=file.sha256 or sha256_of(root / name), bytes=file.bytes)
    return Manifest(schema_version=1, name=resolved.snapshot.repo, files=facts)


def check(file: HubFile, path: Path, *, remedy: str) -> None:
    """Compare a file with the hub's digest of it.

    Raises:
        DigestMismatch: they differ; names file, expected, got and remedy.
        BundleError: the file cannot be read, or the hub gives no digest.
    """
    if file.sha256:
        kind, expected, got = "SHA-256", file.sha256, sha256_of(path)
    elif file.git_sha1:
        kind, expected, got = "git digest", file.git_sha1, _git_sha1(path)
    else:
        raise BundleError(f"{path}: the hub gives no digest for it, so it is not used; copy the files to a folder")
    if got != expected:
        raise DigestMismatch(f"{path}: {kind} expected {expected}, got {got}; {remedy}")


def _bring_one(resolved: Resolved, name: str, root: Path, progress: Progress | None) -> None:
    snapshot, target = resolved.snapshot, root / name
    file = snapshot.files[name]
    if resolved.offline:
        raise HubUnavailable(f"{resolved.offline}; and {name} of commit {snapshot.commit} is not in the cache")
    if name == "manifest.json" and file.bytes > MAX_MANIFEST_BYTES:
        raise BundleError(f"{snapshot.source}/{name} is too large to be the manifest of a bundle")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    log.info(
        "fetching from the hub",
        extra=event("model_fetch_started", source=f"{snapshot.source}/{name}", bytes=file.bytes, target=str(target)),
    )
    try:
        with watched(part, name, file.bytes, progress):
            hub_client.append(snapshot, name, part)
        check(file, part, remedy="it is deleted; try again, and if it stays so the copy on the hub is damaged")
        part.replace(target)
    except (DigestMismatch, OSError):  # of no use, or in the way on a full disk; what broke off stays
        part.unlink(missing_ok=True)
        raise


def _git_sha1(path: Path) -> str:
    """As `git hash-object` computes it: SHA-1 of `blob SIZE`, a zero byte and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _identity(snapshot: Snapshot, names: Sequence[str]) -> str:
    files = [(name, snapshot.files[name]) for name in names]
    lines = (f"{name} {file.bytes} {file.sha256 or file.git_sha1}\n" for name, file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_plain(name: str) -> bool:
    """Whether a path stays below the folder it is joined to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _noted(record: Path) -> Snapshot | None:
    try:
        return Snapshot.model_validate_json(record.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("unreadable, written again: %s", error, extra=event("download_record_invalid", file=str(record)))
        return None


def _note(home: Path, snapshot: Snapshot) -> None:
    part = home / f"{_RECORD_NAME}{_PART}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            part.write_text(snapshot.model_dump_json(indent=1))
            part.replace(home / _RECORD_NAME)
    except OSError as error:
        raise _cannot_write(error, home) from error


def _cannot_write(error: OSError, place: Path) -> BundleError:
    return BundleError(
        f"cannot write {error.filename or place}: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR to a folder that is "
        "writable and has room"
    )
