"""A client of the Hugging Face hub, built on huggingface_hub.

    resolve           one request: the commit of a revision, and every file of it with size and digest
    resume_download   the rest of a file, in as many attempts as bring new bytes

`worker.model.sources.hub_cache` adds a cache. The library's own download keeps no part of an interrupted file, so only
its session, credentials, addresses and errors are used here. It is imported on first use, because a plain installation
does not include it. The token comes from HF_TOKEN or the library's own store and never appears in messages. No
telemetry is sent.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from worker.contract.errors import (
    AccessDenied,
    BundleError,
    BundleNotFound,
    DigestMismatch,
    HubUnavailable,
    ServiceError,
)
from worker.contract.log_fields import event
from worker.model.format.manifest import Sha256

log = logging.getLogger(__name__)

PREFIX = "hf://"
INSTALL = "pip install 'maskmill[hub]'"

_PUBLIC_ENDPOINT = "https://huggingface.co"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_SOURCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_TIMEOUT_SECONDS = 30.0
"""Time without a byte after which a connection counts as broken."""

_ATTEMPTS = 5
"""Consecutive attempts without a new byte after which a download fails."""

PAUSE_SECONDS = 1.0
"""Pause after a broken connection; doubled with each attempt that brings no new byte."""

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_DENIED = frozenset({401, 403})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class HubRepository:
    """A repository at a branch, tag or commit."""

    repo: str
    revision: str | None = None
    """None for the main branch."""

    @classmethod
    def parse(cls, text: str) -> HubRepository:
        """Parse `hf://owner/name[@revision]`.

        Raises:
            BundleNotFound: the text is not of that form.
        """
        match = _SOURCE.fullmatch(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
        if match is None or ".." in text:
            raise BundleNotFound(
                f"{text!r} is not a repository of the hub; write hf://owner/name or hf://owner/name@revision"
            )
        return cls(match["repo"], match["revision"])

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, which never changes."""
        return _COMMIT.fullmatch(self.revision or "") is not None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


class HubFile(BaseModel):
    """One file of a commit. A large file has a SHA-256, a file stored in git has the SHA-1 of its git blob."""

    model_config = ConfigDict(frozen=True)

    bytes: int = Field(ge=0)
    sha256: Sha256 | None = None
    git_sha1: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")


class Snapshot(BaseModel):
    """A repository at one commit."""

    model_config = ConfigDict(frozen=True)

    repo: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: dict[str, HubFile]
    """Path in the repository -> facts."""

    @property
    def source(self) -> str:
        """The address with the commit: `hf://owner/name@0123...`."""
        return f"{PREFIX}{self.repo}@{self.commit}"


def endpoint() -> str:
    """Return the address of the hub: HF_ENDPOINT, else the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _PUBLIC_ENDPOINT


def resolve(repository: HubRepository) -> Snapshot:
    """Return the current commit of a revision, with its files.

    Raises:
        BundleError: huggingface_hub is not installed, or the answer is not that of a hub.
        BundleNotFound: no such repository or revision.
        AccessDenied: the repository is gated, or the token is refused.
        HubUnavailable: no answer.
    """
    hub = _library()
    with _translated(repository):
        info = hub.HfApi(endpoint=endpoint(), library_name="maskmill").model_info(
            repository.repo, revision=repository.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
    try:
        files = {file.rfilename: _file(file) for file in info.siblings or ()}
        return Snapshot(repo=repository.repo, commit=info.sha, files=files)
    except ValueError as error:
        raise BundleError(
            f"{_hub_name()} did not answer as a hub does for {repository} (commit {info.sha!r}); check HF_ENDPOINT"
        ) from error


def resume_download(
    snapshot: Snapshot, name: str, part: Path, on_received: Callable[[int], None] | None = None
) -> None:
    """Download the rest of a file, reconnecting as long as each attempt brings new bytes.

    Args:
        snapshot: the commit.
        name: path in the repository.
        part: file with the beginning, if there is one; kept if the download fails.
        on_received: called after each block with the bytes received so far, those of earlier attempts included.

    Raises:
        HubUnavailable: several attempts brought no new byte.
        DigestMismatch: the hub sends more bytes than it announced.
        BundleNotFound, AccessDenied: as `resolve`.
        OSError: `part` cannot be written.
    """
    total, failures = snapshot.files[name].bytes, 0
    part.touch()
    while (have := part.stat().st_size) != total:
        try:
            with _translated(HubRepository(snapshot.repo, snapshot.commit), name):
                _stream(snapshot, name, part, have, on_received)
            if part.stat().st_size <= have < total:
                raise HubUnavailable(f"{_hub_name()} sent no bytes of {snapshot.source}/{name}; try again later")
        except HubUnavailable as error:
            failures = 0 if part.stat().st_size > have else failures + 1
            if failures >= _ATTEMPTS:
                raise
            log.warning(error, extra=event("download_resumed", offset=part.stat().st_size))
            time.sleep(PAUSE_SECONDS * 2**failures)


def _stream(snapshot: Snapshot, name: str, part: Path, have: int, on_received: Callable[[int], None] | None) -> None:
    """Append to `part` what one request brings, from byte `have` on if the server supports ranges."""
    hub, total = _library(), snapshot.files[name].bytes
    have = have if have < total else 0
    headers = hub.utils.build_hf_headers(library_name="maskmill") | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    url = hub.hf_hub_url(snapshot.repo, name, revision=snapshot.commit, endpoint=endpoint())
    # Redirects lead to another host, to which the client does not send the token.
    with hub.utils.get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code == _UNSATISFIABLE:
            part.write_bytes(b"")  # the next attempt starts from the beginning
            raise HubUnavailable(f"{_hub_name()} refuses to resume {snapshot.source}/{name}")
        hub.utils.hf_raise_for_status(response)
        resumed = response.status_code == _PARTIAL and _starts_at(response, have)
        with part.open("ab" if resumed else "wb") as file:
            written = have if resumed else 0
            for chunk in response.iter_raw():
                written += len(chunk)
                if written > total:
                    raise DigestMismatch(
                        f"{snapshot.source}/{name}: expected {total} bytes, {_hub_name()} sends more; try again, or "
                        "choose another revision"
                    )
                file.write(chunk)
                if on_received:
                    on_received(written)


def _starts_at(response: Any, have: int) -> bool:
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise HubUnavailable(f"{_hub_name()} sends another part of the file than requested")
    return True


def _file(file: Any) -> HubFile:
    lfs = file.lfs
    return HubFile(bytes=file.size or 0, sha256=lfs.sha256 if lfs else None, git_sha1=None if lfs else file.blob_id)


def _library() -> Any:
    """Import huggingface_hub with its telemetry off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise BundleError(f"models from the Hugging Face hub need huggingface_hub: {INSTALL}") from error
    return huggingface_hub


def _hub_name() -> str:
    """The hub for messages, without the login that HF_ENDPOINT may contain."""
    parts = urlsplit(endpoint())
    return f"the hub {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def _translated(repository: HubRepository, name: str = "") -> Iterator[None]:
    """Translate the library's exceptions into our errors. Its texts are dropped: they suggest other remedies."""
    _library()
    # Typed as Any: HTTPError, the base of all exceptions of the HTTP client, is that of httpx or of httpx2, by the
    # version of the library.
    errors: Any = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.GatedRepoError as error:
        raise AccessDenied(
            f"{repository} is gated: accept its terms on its page at {_hub_name()}, and set HF_TOKEN to a token of "
            "that user"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BundleNotFound(
            f"{repository}: the repository has no revision {repository.revision!r}; name a branch, tag or full commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BundleNotFound(
            f"{_hub_name()} shows no repository {repository.repo}; correct the name, or set HF_TOKEN if it is private"
        ) from error
    except errors.EntryNotFoundError as error:
        raise BundleNotFound(f"{repository} has no file {name}; correct the name or the revision") from error
    except errors.HfHubHTTPError as error:
        raise _status_error(error.response.status_code, repository) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnavailable(f"HF_HUB_OFFLINE forbids requests to {_hub_name()} for {repository}; unset it") from error
    except errors.HTTPError as error:
        raise HubUnavailable(
            f"{_hub_name()} cannot be reached for {repository} ({str(error) or type(error).__name__}); check the "
            "network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, or copy the files to a folder and use that as the source"
        ) from error


def _status_error(status: int, repository: HubRepository) -> ServiceError:
    if status in _DENIED:
        return AccessDenied(
            f"{_hub_name()} answered {status} for {repository}: set HF_TOKEN to a token that may read it"
        )
    if status in _BUSY:
        return HubUnavailable(f"{_hub_name()} answered {status} for {repository}; try again later")
    return ServiceError(f"{_hub_name()} answered {status} for {repository}; check HF_ENDPOINT and the name")
