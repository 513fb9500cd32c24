"""Copy the outputs of a job to a local folder."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from producer.sources.lookup import in_order
from producer.subfolder import open_subfolder
from worker.contract.errors import ImageError, ObjectMissing, SourceError, StoreUnavailable
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore

AT_ONCE = 8
"""Outputs that are fetched at the same time."""

_OUTCOMES_AT_ONCE = 1000

_ENDS_ALL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of the file system that every further file would meet too."""


@dataclass(frozen=True)
class Fetched:
    """One output."""

    key: str
    path: Path
    """The local file."""

    gone: bool
    """The output was deleted from the bucket, so there is no file."""

    problem: str = ""
    """Why there is no file although the output exists: its key cannot be a file here, or S3 fails for it."""


OnFile = Callable[[Fetched], None]
"""Called for each output, in order."""


@dataclass(frozen=True)
class Downloaded:
    """What a download has copied."""

    folder: Path
    files: int
    """Outputs that are complete in the folder."""

    gone: int
    """Outputs that were deleted from the bucket since the job wrote them."""

    failed: int = 0
    """Outputs that exist and are not in the folder; `on_file` gets the problem of each."""


def download_all(
    store: ObjectStore, ledger: Ledger, view: JobView, folder: Path, on_file: OnFile = lambda fetched: None
) -> Downloaded:
    """Fetch every output of a job, as `download` does, and count.

    Raises:
        SourceError, ServiceError: as for `download`.
    """
    files = gone = failed = 0
    for fetched in download(store, ledger, view, folder):
        gone += fetched.gone
        failed += bool(fetched.problem)
        files += not fetched.gone and not fetched.problem
        on_file(fetched)
    return Downloaded(folder, files, gone, failed)


def download(store: ObjectStore, ledger: Ledger, view: JobView, folder: Path) -> Iterator[Fetched]:
    """Fetch every output of a job, keeping the tree; yield each, in order, when its file is complete.

    Existing files are replaced, and links below the folder are not followed. A file appears under its name only when it
    is complete. An output that cannot be a file here, or that S3 fails for, does not stop the others
    (`Fetched.problem`).

    Raises:
        SourceError: the job has no list of images yet, the folder cannot be created, or its disk is full or read-only.
        ServiceError: S3 or Redis failed.
    """
    if view.total is None:
        raise SourceError(f"job {view.job} is still being listed: wait until it runs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(f"{folder} cannot be created: {error.strerror}") from error
    keys = _output_keys(store, ledger, view)
    yield from in_order(keys, lambda key: fetch(store, view.options.dest, key, folder), AT_ONCE)


def fetch(store: ObjectStore, dest: S3Url, key: str, folder: Path) -> Fetched:
    """Fetch one output below a destination to its place below a local folder; see `download`."""
    path = folder
    try:
        path = local_path(folder, key)
        with open_subfolder(folder, key.split("/")[:-1]) as parent:
            store.download(dest / key, parent / path.name)
    except ObjectMissing:
        return Fetched(key, path, gone=True)
    except OSError as error:
        if error.errno in _ENDS_ALL:
            raise SourceError(f"{path} cannot be written: {error.strerror}") from error
        return Fetched(key, path, gone=False, problem=f"{path} cannot be written: {error.strerror}")
    except (SourceError, ImageError) as error:
        return Fetched(key, path, gone=False, problem=str(error))
    except StoreUnavailable as error:
        if not error.of_object:
            raise
        return Fetched(key, path, gone=False, problem=str(error))
    return Fetched(key, path, gone=False)


def _output_keys(store: ObjectStore, ledger: Ledger, view: JobView) -> Iterator[str]:
    """Yield the outputs of all images that have some, in the order of the manifest."""
    known: list[OutcomeKind | None] = []
    total = view.total or 0
    for index, entry in enumerate(manifest.read(store, view.options.dest, view.job, total)):
        if index % _OUTCOMES_AT_ONCE == 0:
            known = ledger.outcomes(view.job, index, min(_OUTCOMES_AT_ONCE, total - index))
        if known[index % _OUTCOMES_AT_ONCE] in (OutcomeKind.OK, OutcomeKind.SKIPPED):
            for kind in view.options.outputs:
                yield view.options.output_key(entry.key, kind)


def local_path(folder: Path, key: str) -> Path:
    """Return the file for a key. Keys are untrusted: `../../x` must stay below the folder, `a//b` must not be `a/b`."""
    parts = key.split("/")
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise SourceError(
            f"key {key!r} cannot be a file below {folder}: rename the picture, or submit it with another --name"
        )
    return folder.joinpath(*parts)
