"""Fetch bundles and checkpoints from the Hugging Face hub into the cache: `hf://owner/name[@revision]`.

A revision is resolved to a commit, and each file is checked against the digest that the hub gives for that commit. An
interrupted download is resumed, by another process as well. The last resolved commit is recorded: a source pinned to a
full commit needs no network once its files are cached, and if the hub does not answer for a branch, the recorded
commit is used from the cache, with a warning.

    CACHE/bundles/{source}/.lock
    CACHE/bundles/{source}/hub.json                  the last resolved commit, its files and their digests
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
from worker.model.format.layout import MANIFEST_NAME
from worker.model.format.manifest import SCHEMA_VERSION, BundleManifest, FileFacts, check_manifest_size, sha256_of
from worker.model.sources import hub_client
from worker.model.sources.hub_client import HubFile, HubRepository, Snapshot
from worker.model.sources.progress import OnProgress
from worker.processes.filelock import locked

log = logging.getLogger(__name__)

_RECORD_NAME = "hub.json"
_PART = ".part"
_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ResolvedRepository:
    """A repository and the commit that its revision stands for."""

    repository: HubRepository
    snapshot: Snapshot
    home: Path
    """Folder of the repository in the cache."""

    offline: str = ""
    """Why the hub could not be asked; empty if it answered, or if the commit is pinned and already recorded."""


def resolve(repository: HubRepository, cache_dir: Path) -> ResolvedRepository:
    """Return the commit and its files, from the hub or from the record of the last answer.

    Raises:
        HubUnavailable: the hub does not answer, and there is no record.
        BundleNotFound, AccessDenied, BundleError: from `hub_client.resolve`, or the cache cannot be written.
    """
    key = f"{hub_client.endpoint()} {repository}"
    home = cache_dir / "bundles" / hashlib.sha256(key.encode()).hexdigest()[:_FOLDER_DIGITS]
    recorded = _read_record(home / _RECORD_NAME)
    if recorded and repository.is_pinned:
        return ResolvedRepository(repository, recorded, home)
    try:
        snapshot = hub_client.resolve(repository)
    except HubUnavailable as error:
        if recorded is None:
            raise
        return ResolvedRepository(repository, recorded, home, str(error))
    _write_record(home, snapshot)
    return ResolvedRepository(repository, snapshot, home)


def fetch(resolved: ResolvedRepository, names: Sequence[str], on_progress: OnProgress | None = None) -> Path:
    """Return a cache folder with these files, downloading those that are missing. Files in the cache are not read.

    Args:
        resolved: from `resolve`.
        names: paths in the repository. The name of the folder is derived from all of them, so that files of two commits
            never mix.
        on_progress: called while files download.

    Raises:
        BundleNotFound: the commit has no such file.
        DigestMismatch: a downloaded file does not have the digest that the hub gives.
        HubUnavailable: the download was interrupted; the received part is kept and resumed later.
        BundleError: the cache cannot be written.
    """
    snapshot = resolved.snapshot
    missing = [name for name in names if name not in snapshot.files or not _is_plain(name)]
    if missing:
        raise BundleNotFound(f"{snapshot.source} has no file {missing[0]}; correct the name or the revision")
    root = resolved.home / _files_id(snapshot, names)[:_FOLDER_DIGITS]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(resolved.home / ".lock"):
            for name in names:
                if not (root / name).exists():
                    _fetch_file(resolved, name, root, on_progress)
    except OSError as error:
        raise _cannot_write(error, root) from error
    return root


def download(
    repo: str, revision: str | None, filename: str, cache_dir: Path, on_progress: OnProgress | None = None
) -> Path:
    """Return one file of a repository, such as a checkpoint, from the cache, verified.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit; None for the main branch.
        filename: path in the repository.
        cache_dir: of the model settings.
        on_progress: called while the file downloads.

    Raises:
        BundleNotFound, AccessDenied, DigestMismatch, HubUnavailable, BundleError: see `resolve`, `fetch` and `check`.
    """
    address = f"{hub_client.PREFIX}{repo}" + (f"@{revision}" if revision else "")
    resolved = resolve(HubRepository.parse(address), cache_dir)
    if resolved.offline:
        log.warning(
            "%s; using the copy in the cache",
            resolved.offline,
            extra=event("model_from_cache", commit=resolved.snapshot.commit),
        )
    path = fetch(resolved, [filename], on_progress) / filename
    check(resolved.snapshot.files[filename], path, remedy=f"delete {path}, it will be fetched again")
    return path


def manifest_from_hub(resolved: ResolvedRepository, root: Path, names: Sequence[str]) -> BundleManifest:
    """Return the digests that the hub gives for cached files, as a bundle manifest.

    The hub gives no SHA-256 for a file stored in git. Such a file is checked by its git digest here, and its SHA-256 is
    computed.

    Raises:
        DigestMismatch: a file stored in git is damaged in the cache.
    """
    facts = {}
    for name in names:
        file = resolved.snapshot.files[name]
        if file.sha256 is None:
            check(file, root / name, remedy=f"delete {root}, it will be fetched again")
        facts[name] = FileFacts(sha256=file.sha256 or sha256_of(root / name), bytes=file.bytes)
    return BundleManifest(schema_version=SCHEMA_VERSION, name=resolved.snapshot.repo, files=facts)


def check(file: HubFile, path: Path, *, remedy: str) -> None:
    """Compare a file with the digest that the hub gives for it.

    Raises:
        DigestMismatch: the digests differ; names file, expected, got and remedy.
        BundleError: the file cannot be read, or the hub gives no digest.
    """
    if file.sha256:
        kind, expected, got = "SHA-256", file.sha256, sha256_of(path)
    elif file.git_sha1:
        kind, expected, got = "git digest", file.git_sha1, _git_sha1(path)
    else:
        raise BundleError(
            f"{path}: the hub gives no digest for this file, so it cannot be checked; copy the files to a folder and "
            "use that as the source"
        )
    if got != expected:
        raise DigestMismatch(f"{path}: {kind} expected {expected}, got {got}; {remedy}")


def _fetch_file(resolved: ResolvedRepository, name: str, root: Path, on_progress: OnProgress | None) -> None:
    snapshot, target = resolved.snapshot, root / name
    file = snapshot.files[name]
    if resolved.offline:
        raise HubUnavailable(f"{resolved.offline}; and {name} of commit {snapshot.commit} is not in the cache")
    if name == MANIFEST_NAME:
        check_manifest_size(file.bytes, f"{snapshot.source}/{name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    log.info(
        "fetching from the hub",
        extra=event("model_fetch_started", source=f"{snapshot.source}/{name}", bytes=file.bytes, target=str(target)),
    )
    try:
        on_received = None if on_progress is None else lambda received: on_progress(name, received, file.bytes)
        hub_client.resume_download(snapshot, name, part, on_received)
        if on_progress:
            on_progress(name, file.bytes, file.bytes)
        check(file, part, remedy="it is deleted; try again, and if it fails again the copy on the hub is damaged")
        part.replace(target)
    except (DigestMismatch, OSError):  # a wrong part is useless, and a full disk needs its space; others are resumed
        part.unlink(missing_ok=True)
        raise


def _git_sha1(path: Path) -> str:
    """Digest as `git hash-object` computes it: SHA-1 of `blob SIZE`, a zero byte and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _files_id(snapshot: Snapshot, names: Sequence[str]) -> str:
    """Digest that identifies these files of a commit."""
    files = [(name, snapshot.files[name]) for name in names]
    lines = (f"{name} {file.bytes} {file.sha256 or file.git_sha1}\n" for name, file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_plain(name: str) -> bool:
    """Whether a path stays below the folder that it is joined to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _read_record(record: Path) -> Snapshot | None:
    try:
        return Snapshot.model_validate_json(record.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("unreadable, written again: %s", error, extra=event("download_record_invalid", file=str(record)))
        return None


def _write_record(home: Path, snapshot: Snapshot) -> None:
    part = home / f"{_RECORD_NAME}{_PART}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock"):
            part.write_text(snapshot.model_dump_json(indent=1))
            part.replace(home / _RECORD_NAME)
    except OSError as error:
        raise _cannot_write(error, home) from error


def _cannot_write(error: OSError, path: Path) -> BundleError:
    return BundleError(
        f"cannot write {error.filename or path}: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR to a writable folder "
        "with enough space"
    )
