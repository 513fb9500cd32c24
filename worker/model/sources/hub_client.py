"""The Hugging Face hub over HTTP, through huggingface_hub: what a repository holds, and the bytes of a file.

    look     one request: the commit that a revision names, every file with its size and digest
    append   a file from where an earlier attempt broke off, in as many attempts as make progress

`worker.model.sources.hub_cache` puts a cache on top. The library's own download keeps no part of a file that broke off,
so only its session, credentials, addresses and errors are used here. It is imported when it is needed and is not part
of a plain installation. A token comes from HF_TOKEN or the library's own store and is never shown; no telemetry is
sent.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import time
from collections.abc import Iterator
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
"""Without a byte, before a connection counts as broken."""
_ATTEMPTS = 5
"""In a row without one new byte, before a download is given up."""
PAUSE_SECONDS = 1.0
"""After a break; doubled with each attempt that brings nothing."""

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_DENIED = frozenset({401, 403})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class HubSource:
    """A repository, and the branch, tag or commit asked for (None: the main branch)."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubSource:
        """Read `hf://owner/name[@revision]`.

        Raises:
            BundleNotFound: not of that form.
        """
        match = _SOURCE.fullmatch(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
        if match is None or ".." in text:
            raise BundleNotFound(f"{text!r} names no repository of the hub; write hf://owner/name or .../name@revision")
        return cls(match["repo"], match["revision"])

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, which never changes."""
        return _COMMIT.fullmatch(self.revision or "") is not None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


class HubFile(BaseModel):
    """One file of a commit. Large files have a SHA-256, those kept in git the SHA-1 of the git blob."""

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
        """With the commit spelt out: `hf://owner/name@0123...`."""
        return f"{PREFIX}{self.repo}@{self.commit}"


def endpoint() -> str:
    """Address of the hub: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _PUBLIC_ENDPOINT


def look(source: HubSource) -> Snapshot:
    """What the revision holds now.

    Raises:
        BundleError: huggingface_hub is not installed, or the answer is not that of a hub.
        BundleNotFound: no such repository or revision.
        AccessDenied: the repository is gated, or the token is refused.
        HubUnavailable: no answer.
    """
    hub = _library()
    with _translated(source):
        info = hub.HfApi(endpoint=endpoint(), library_name="maskmill").model_info(
            source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
    try:
        files = {file.rfilename: _file(file) for file in info.siblings or ()}
        return Snapshot(repo=source.repo, commit=info.sha, files=files)
    except ValueError as error:
        raise BundleError(
            f"{_place()} did not answer as a hub does for {source} (commit {info.sha!r}); check HF_ENDPOINT"
        ) from error


def append(snapshot: Snapshot, name: str, part: Path) -> None:
    """Bring the rest of a file, however often the connection breaks, as long as it gets on.

    Args:
        snapshot: the commit.
        name: path in the repository.
        part: file that holds the beginning, or nothing yet; kept when the download is given up.

    Raises:
        HubUnavailable: no new byte in several attempts.
        DigestMismatch: the hub sends more than it announced.
        BundleNotFound, AccessDenied: as `look`.
        OSError: `part` cannot be written.
    """
    total, waited = snapshot.files[name].bytes, 0
    part.touch()
    while (have := part.stat().st_size) != total:
        try:
            with _translated(HubSource(snapshot.repo, snapshot.commit), name):
                _stream(snapshot, name, part, have)
            if part.stat().st_size <= have < total:
                raise HubUnavailable(f"{_place()} sent nothing of {snapshot.source}/{name}; try again later")
        except HubUnavailable as error:
            waited = 0 if part.stat().st_size > have else waited + 1
            if waited >= _ATTEMPTS:
                raise
            log.warning(error, extra=event("download_resumed", offset=part.stat().st_size))
            time.sleep(PAUSE_SECONDS * 2**waited)


def _stream(snapshot: Snapshot, name: str, part: Path, have: int) -> None:
    hub, total = _library(), snapshot.files[name].bytes
    have = have if have < total else 0
    headers = hub.utils.build_hf_headers(library_name="maskmill") | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    url = hub.hf_hub_url(snapshot.repo, name, revision=snapshot.commit, endpoint=endpoint())
    # Redirects lead to another host; the client leaves the token out there.
    with hub.utils.get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code == _UNSATISFIABLE:
            part.write_bytes(b"")  # from the beginning then
            raise HubUnavailable(f"{_place()} refuses to go on with {snapshot.source}/{name}")
        hub.utils.hf_raise_for_status(response)
        resumed = response.status_code == _PARTIAL and _starts_at(response, have)
        with part.open("ab" if resumed else "wb") as file:
            written = have if resumed else 0
            for chunk in response.iter_raw():
                written += len(chunk)
                if written > total:
                    raise DigestMismatch(
                        f"{snapshot.source}/{name}: expected {total} bytes, {_place()} sends more; try again, or name "
                        "another revision"
                    )
                file.write(chunk)


def _starts_at(response: Any, have: int) -> bool:
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise HubUnavailable(f"{_place()} sends another part of the file than asked for")
    return True


def _file(file: Any) -> HubFile:
    lfs = file.lfs
    return HubFile(bytes=file.size or 0, sha256=lfs.sha256 if lfs else None, git_sha1=None if lfs else file.blob_id)


def _library() -> Any:
    """huggingface_hub, with its telemetry off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise BundleError(f"models from the Hugging Face hub need huggingface_hub: {INSTALL}") from error
    return huggingface_hub


def _place() -> str:
    """The hub in messages, without a login that HF_ENDPOINT might carry."""
    parts = urlsplit(endpoint())
    return f"the hub {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextlib.contextmanager
def _translated(source: HubSource, name: str = "") -> Iterator[None]:
    """Turn what the library raises into our errors. Its own texts are left out: they speak of other remedies."""
    _library()
    # As a module of unknown attributes: its HTTPError, the root of all that the HTTP client raises, is that of httpx
    # or httpx2, by the library's version.
    errors: Any = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.GatedRepoError as error:
        raise AccessDenied(
            f"{source} is gated: accept its terms on its page at {_place()}, and set HF_TOKEN to a token of that user"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BundleNotFound(
            f"{source}: the repository has no revision {source.revision!r}; name a branch, tag or full commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BundleNotFound(
            f"{_place()} shows no repository {source.repo}; correct the name, or set HF_TOKEN if it is private"
        ) from error
    except errors.EntryNotFoundError as error:
        raise BundleNotFound(f"{source} has no file {name}; correct the name or the revision") from error
    except errors.HfHubHTTPError as error:
        raise _by_status(error.response.status_code, source) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnavailable(f"HF_HUB_OFFLINE forbids asking {_place()} for {source}; unset it") from error
    except errors.HTTPError as error:
        raise HubUnavailable(
            f"{_place()} cannot be reached for {source} ({str(error) or type(error).__name__}); check the network, a "
            "proxy (HTTPS_PROXY) and HF_ENDPOINT, or copy the files to a folder and name that"
        ) from error


def _by_status(status: int, source: HubSource) -> ServiceError:
    if status in _DENIED:
        return AccessDenied(f"{_place()} answered {status} for {source}: set HF_TOKEN to a token that may read it")
    if status in _BUSY:
        return HubUnavailable(f"{_place()} answered {status} for {source}; try again later")
    return ServiceError(f"{_place()} answered {status} for {source}; check HF_ENDPOINT and the name")
