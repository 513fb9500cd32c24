"""What became of every image of a job, in S3: written while it runs, read by its lists, by `results` and `recover`.

{dest}/_maskmill/{job}/job.json                       what was asked
                      manifest/part-*.jsonl.gz        the images
                      results/{epoch}-{id}-{n}.jsonl.gz   outcomes as they came, an image's last one counts
when it has ended:    succeeded-*.jsonl.gz, failed.jsonl, cancelled-*.jsonl.gz, manifest.json, _SUCCESS
                      needs-review.jsonl              those of the succeeded that a person should look at
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from worker.contract import outcome_codec
from worker.contract.errors import ContractError, ObjectMissing
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import jsonlines, manifest
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

PART_OUTCOMES = 5_000
"""Outcomes in one part at most: about 100 kB compressed."""

FAILED = "failed.jsonl"
"""List of a job that has ended: images that failed or are dead."""

REVIEW = "needs-review.jsonl"
"""List of a job that has ended: those of the succeeded that a person should look at, once more."""

SUCCEEDED, CANCELLED = "succeeded", "cancelled"
"""How the names of the other lists begin: they are in numbered parts, `-00000.jsonl.gz`."""

_KINDS = {kind.value: kind for kind in OutcomeKind}
_TOLD = 255
_MAX_FACTS_BYTES = 4 * 1024 * 1024


def results_folder(dest: S3Url, job: str) -> S3Url:
    """Where the outcomes of a job are."""
    return job_folder(dest, job) / "results/"


def write_part(store: ObjectStore, dest: S3Url, job: str, *, epoch: int, first_id: str, lines: Sequence[str]) -> S3Url:
    """Write outcomes (JSON texts). The same ones give the same name, so writing again replaces.

    The name tells how many there are: who was held up and writes fewer of them late must not replace more.

    Args:
        store: where to.
        dest: of the job.
        job: its id.
        epoch: of the job.
        first_id: of the first outcome in the stream they come from, `milliseconds-number`.
        lines: the outcomes.
    """
    milliseconds, _, number = first_id.partition("-")
    name = f"{epoch:04d}-{int(milliseconds):015d}-{int(number):06d}-{len(lines):06d}.jsonl.gz"
    place = results_folder(dest, job) / name
    jsonlines.write(store, place, lines)
    return place


def part_names(store: ObjectStore, dest: S3Url, job: str) -> list[str]:
    """Names of all parts, oldest first."""
    return sorted(item.key for item in store.list(results_folder(dest, job)))


def newest_first(store: ObjectStore, dest: S3Url, job: str) -> Iterator[Outcome]:
    """All outcomes of a job, the last one of an image before its earlier ones; constant memory.

    Raises:
        ContractError: a part was changed or replaced.
    """
    for name in reversed(part_names(store, dest, job)):
        yield from reversed(jsonlines.read(store, results_folder(dest, job) / name, Outcome))


def final(
    store: ObjectStore, dest: S3Url, job: str, known: bytearray, recent: Iterable[Outcome] = ()
) -> Iterator[Outcome]:
    """The one outcome that counts of every image that has one: what the ledger says, with the details of the log.

    Args:
        store: where the job's folder is.
        dest: of the job.
        job: its id.
        known: the ledger's state of every image (`states`), read before everything else; used up.
        recent: outcomes that may not be in S3 yet, newest first.

    Raises:
        ContractError: the job's objects were changed by somebody else.
    """
    for outcome in itertools.chain(recent, newest_first(store, dest, job)):
        if outcome.index < len(known) and known[outcome.index] == outcome_codec.NUMBERS[outcome.kind]:
            known[outcome.index] = _TOLD
            yield outcome
    if known.count(_TOLD) + known.count(0) == len(known):
        return
    # Cancelled images have no line in the log; nor has one whose line was lost with Redis after its state was saved.
    for index, entry in enumerate(manifest.read(store, dest, job, len(known))):
        if kind := None if known[index] == _TOLD else outcome_codec.KINDS[known[index]]:
            yield Outcome(index=index, key=entry.key, kind=kind)


def verdicts(store: ObjectStore, dest: S3Url, job: str) -> Iterator[tuple[int, OutcomeKind]]:
    """The same with nothing but position and kind: several times as fast.

    Raises:
        ContractError: a part was changed or replaced, or a line is not an outcome.
    """
    for name in reversed(part_names(store, dest, job)):
        place = results_folder(dest, job) / name
        for line in reversed(jsonlines.read_lines(store, place)):
            try:
                fields = json.loads(line)
                yield fields["index"], _KINDS[fields["kind"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ContractError(f"{place} was changed: {line[:80]!r} is not an outcome") from error


def write_facts(store: ObjectStore, dest: S3Url, job: str, name: str, facts: dict[str, Any]) -> S3Url:
    """Write a JSON object of the job's folder, such as `job.json`."""
    place = job_folder(dest, job) / name
    body = json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
    store.put(place, body, content_type="application/json")
    return place


def read_facts(store: ObjectStore, dest: S3Url, job: str, name: str) -> dict[str, Any] | None:
    """Read a JSON object of the job's folder; None if there is none.

    Raises:
        ContractError: it is not a JSON object.
    """
    place = job_folder(dest, job) / name
    try:
        body, _ = store.get(place, max_bytes=_MAX_FACTS_BYTES)
        facts = json.loads(body)
    except ObjectMissing:
        return None
    except ValueError as error:
        raise ContractError(f"{place} is not JSON: it was changed or replaced") from error
    if not isinstance(facts, dict):
        raise ContractError(f"{place} is not a JSON object: it was changed or replaced")
    return facts
