"""The outcomes of a job's images in S3: written while the job runs, read for its lists, `results` and `recover`.

Job metadata is stored under `{dest}/_maskmill/{job}/`:

job.json                            the request: options, policy and totals
retry.json                          which images of the ended job run again, and under which epoch
manifest/part-*.jsonl.gz            the images
results/{epoch}-{id}-{n}-{digest}.jsonl.gz   the outcome log, in order of arrival; the last outcome of an image counts

and when the job has ended:

succeeded-*.jsonl.gz, failed.jsonl, cancelled-*.jsonl.gz   every image in exactly one list
needs-review.jsonl                  the succeeded images that a person should review
manifest.json                       the job summary
_SUCCESS                            empty; only if the job finished and every image is ok or skipped
_DONE                               empty, in its place; the job finished, but images failed
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from worker.contract import outcome_codec
from worker.contract.errors import ContractError, ObjectMissing, TooLarge
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import jsonlines, manifest
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

PART_OUTCOMES = 5_000
"""Most outcomes per part of the outcome log, about 100 kB compressed."""

REQUEST = "job.json"
"""The request: options, policy and totals. Written after the manifest, before the job runs."""

FAILED = "failed.jsonl"
"""List of an ended job: failed and dead images."""

REVIEW = "needs-review.jsonl"
"""List of an ended job: the succeeded images that a person should review. They are in the list of succeeded too."""

SUCCEEDED, CANCELLED = "succeeded", "cancelled"
"""Prefixes of the other lists, which have numbered parts, `-00000.jsonl.gz`."""

REQUEST = "job.json"
"""What was submitted: options, policy and totals. Written when all images are listed."""

RESULTS = "results/"
"""Folder of the outcome log."""

SUMMARY = "manifest.json"
"""The job summary of an ended job: options, counts, times, costs and the names of its lists."""

SUCCESS = "_SUCCESS"
"""Empty object, written last: the job finished, and every image is ok or skipped."""

DONE = "_DONE"
"""Empty object, written last in place of `SUCCESS`: the job finished, but images failed."""

_KINDS = {kind.value: kind for kind in OutcomeKind}
_YIELDED = 255
"""Mark of an image in `final` whose outcome has been yielded."""

_MAX_JSON_BYTES = 4 * 1024 * 1024

_DIGEST = 12
"""Hexadecimal digits of the SHA-256 of the lines, in the name of a part."""

_PART_NAME = re.compile(rf"\d{{4,7}}-\d{{15}}-\d{{6,20}}-\d{{6}}(-[0-9a-f]{{{_DIGEST}}})?\.jsonl\.gz", re.ASCII)
"""Parts of earlier versions have no digest."""

_MAX_PARTS = 200_000
"""Most objects beside each other in the outcome log: a part every 30 s for two months."""

_MAX_PART_BYTES = 32 * 1024 * 1024
"""Most bytes of a part after decompression; its lines are held in memory, because they are read backwards."""


def results_folder(dest: S3Url, job: str) -> S3Url:
    """Return the folder of a job's outcome log."""
    return job_folder(dest, job) / RESULTS


def write_part(store: ObjectStore, dest: S3Url, job: str, *, epoch: int, first_id: str, lines: Sequence[str]) -> S3Url:
    """Write one part of the outcome log. Equal outcomes give an equal name, so writing them again replaces the part.

    Other outcomes give another name: a delayed writer does not replace a larger part, and outcomes from a primary that
    Redis has left do not replace those of its successor, although both may have given the same id.

    Args:
        store: the object store.
        dest: destination of the job.
        job: id of the job.
        epoch: epoch of the job.
        first_id: id of the first outcome in its Redis stream, `milliseconds-number`.
        lines: the outcomes as JSON texts.

    Returns:
        The URL of the part.
    """
    milliseconds, _, number = first_id.partition("-")
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    name = f"{epoch:04d}-{int(milliseconds):015d}-{int(number):06d}-{len(lines):06d}-{digest}.jsonl.gz"
    url = results_folder(dest, job) / name
    jsonlines.write(store, url, lines)
    return url


def part_names(store: ObjectStore, dest: S3Url, job: str) -> list[str]:
    """Return the names of all parts of the outcome log, oldest first. Objects with other names are left out.

    Raises:
        ContractError: the folder has more objects than any job writes.
    """
    folder = results_folder(dest, job)
    names = []
    for number, item in enumerate(store.list(folder)):
        if number >= _MAX_PARTS:
            raise ContractError(f"{folder} has more than {_MAX_PARTS:,} objects: remove those that are not of the job")
        if is_part_name(item.key):
            names.append(item.key)
    return sorted(names)


def epoch_of(name: str) -> int:
    """Return the epoch in the name of a part."""
    return int(name.partition("-")[0])


def is_part_name(name: str) -> bool:
    """Return whether a name is one of a part of the outcome log."""
    return _PART_NAME.fullmatch(name) is not None


def newest_first(store: ObjectStore, dest: S3Url, job: str) -> Iterator[Outcome]:
    """Yield all logged outcomes of a job, newest first, in constant memory.

    Raises:
        ContractError: a part was changed or replaced.
    """
    for url, lines in _parts_newest_first(store, dest, job):
        while lines:
            line = lines.pop()
            try:
                yield Outcome.model_validate_json(line)
            except ValidationError as error:
                raise _changed(url, line) from error


def _parts_newest_first(
    store: ObjectStore, dest: S3Url, job: str, names: Sequence[str] | None = None
) -> Iterator[tuple[S3Url, list[bytes]]]:
    """Yield the lines of each part, in order."""
    for name in reversed(part_names(store, dest, job) if names is None else names):
        url = results_folder(dest, job) / name
        yield url, list(jsonlines.read_lines(store, url, max_bytes=_MAX_PART_BYTES))


def _changed(url: S3Url, line: bytes) -> ContractError:
    return ContractError(f"{url} was changed: {line[:80]!r} is not an outcome")


def final(
    store: ObjectStore, dest: S3Url, job: str, known: bytearray, recent: Iterable[Outcome] = ()
) -> Iterator[Outcome]:
    """Yield the final outcome of every image that has one: the kind from the ledger, the details from the log.

    Args:
        store: the object store.
        dest: destination of the job.
        job: id of the job.
        known: the outcome of every image in the ledger, one byte each (`outcome_codec`), read before the log.
            Overwritten.
        recent: outcomes that may not be in S3 yet, newest first.

    Raises:
        ContractError: an object of the job was changed or replaced.
    """
    for outcome in itertools.chain(recent, newest_first(store, dest, job)):
        if outcome.index < len(known) and known[outcome.index] == outcome_codec.NUMBERS[outcome.kind]:
            known[outcome.index] = _YIELDED
            yield outcome
    if known.count(_YIELDED) + known.count(0) == len(known):
        return
    # The log lacks cancelled images, and images whose line was lost with Redis after their state was saved.
    for index, entry in enumerate(manifest.read(store, dest, job, len(known))):
        if kind := None if known[index] == _YIELDED else outcome_codec.KINDS[known[index]]:
            yield Outcome(index=index, key=entry.key, kind=kind)


def kinds_newest_first(
    store: ObjectStore, dest: S3Url, job: str, names: Sequence[str] | None = None
) -> Iterator[tuple[int, int, OutcomeKind]]:
    """Yield the epoch, index and kind of all logged outcomes, newest first. Several times as fast as `newest_first`.

    Args:
        store: the object store.
        dest: destination of the job.
        job: id of the job.
        names: of the parts, oldest first, if they are known (`part_names`).

    Raises:
        ContractError: a part was changed or replaced, or a line is not an outcome.
    """
    for url, lines in _parts_newest_first(store, dest, job, names):
        epoch = epoch_of(url.key.rpartition("/")[2])
        for line in reversed(lines):
            try:
                fields = json.loads(line)
                index, kind = fields["index"], _KINDS[fields["kind"]]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise _changed(url, line) from error
            if type(index) is not int or index < 0:
                raise _changed(url, line)
            yield epoch, index, kind


def write_json(store: ObjectStore, dest: S3Url, job: str, name: str, content: dict[str, Any]) -> S3Url:
    """Write a JSON object to the job's folder, such as `job.json`, and return its URL."""
    url = job_folder(dest, job) / name
    body = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
    store.put(url, body, content_type="application/json")
    return url


def read_json(store: ObjectStore, dest: S3Url, job: str, name: str) -> dict[str, Any] | None:
    """Read a JSON object from the job's folder; None if it does not exist.

    Raises:
        ContractError: the content is not a JSON object.
    """
    url = job_folder(dest, job) / name
    try:
        body, _ = store.get(url, max_bytes=_MAX_JSON_BYTES)
        content = json.loads(body)
    except ObjectMissing:
        return None
    except TooLarge as error:
        raise ContractError(f"{url} is larger than maskmill writes it: it was changed or replaced") from error
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{url} is not JSON: it was changed or replaced") from error
    if not isinstance(content, dict):
        raise ContractError(f"{url} is not a JSON object: it was changed or replaced")
    return content
