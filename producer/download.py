"""Copy the outputs of a job to a local folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import ObjectMissing, SourceError
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore

_AT_ONCE = 8
_READ_AT_ONCE = 1000


@dataclass(frozen=True)
class Fetched:
    """One output: where it lies now, or that somebody has deleted it from the bucket since."""

    key: str
    path: Path
    gone: bool


def download(store: ObjectStore, ledger: Ledger, view: JobView, folder: Path) -> Iterator[Fetched]:
    """Fetch every output there is, keeping the tree; yields each when its file is complete.

    Files that are there already are replaced. A file appears under its name only when it is complete.

    Raises:
        SourceError: the job has no list of images yet, a key cannot be a path below `folder`, or the disk says no.
    """
    if view.total is None:
        raise SourceError(f"job {view.job} is still being listed: wait for it to run")
    dest = view.options.dest
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="download") as threads:
        under_way: deque[tuple[str, Path, Future[None]]] = deque()
        for output in _outputs(store, ledger, view, dest):
            path = _local_path(folder, output)
            under_way.append((output, path, threads.submit(_fetch, store, dest / output, path)))
            if len(under_way) > 2 * _AT_ONCE:
                yield _complete(*under_way.popleft())
        while under_way:
            yield _complete(*under_way.popleft())


def _outputs(store: ObjectStore, ledger: Ledger, view: JobView, dest: S3Url) -> Iterator[str]:
    known: list[OutcomeKind | None] = []
    total = view.total or 0
    for index, entry in enumerate(manifest.read(store, dest, view.job, total)):
        if index % _READ_AT_ONCE == 0:
            known = ledger.outcomes(view.job, index, min(_READ_AT_ONCE, total - index))
        if known[index % _READ_AT_ONCE] in (OutcomeKind.OK, OutcomeKind.SKIPPED):
            for kind in view.options.outputs:
                yield view.options.output_key(entry.key, kind)


def _fetch(store: ObjectStore, place: S3Url, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    store.download(place, path)


def _complete(key: str, path: Path, copied: Future[None]) -> Fetched:
    try:
        copied.result()
    except ObjectMissing:
        return Fetched(key, path, gone=True)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}") from error
    return Fetched(key, path, gone=False)


def _local_path(folder: Path, key: str) -> Path:
    """Keys are untrusted: `../../x` must not leave the folder, and `a//b` must not be written over `a/b`."""
    parts = key.split("/")
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise SourceError(f"key {key!r} cannot be a file below {folder}: fetch it with an S3 tool")
    return folder.joinpath(*parts)
