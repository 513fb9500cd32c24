"""Find out whether the outputs of an image exist, made from the same source with the same model and options.

Every output says in its metadata what it was made from, so a job that is submitted again does only what has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from worker.contract.errors import ObjectMissing
from worker.contract.messages import OutcomeKind
from worker.contract.provenance import JOB, MODEL, OPTIONS, same_model_and_options, same_source, source_facts
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

__all__ = ["JOB", "MODEL", "OPTIONS", "existing_outcome"]


def existing_outcome(
    store: ObjectStore, source: S3Url, outputs: Iterable[S3Url], expected: Mapping[str, str]
) -> OutcomeKind | None:
    """Return the outcome of an image whose outputs are up to date; None if it has to be done.

    Args:
        store: holds the source and the outputs.
        source: the image.
        outputs: all outputs of the image.
        expected: metadata of an output made now: `MODEL`, `OPTIONS`, `JOB`.

    Returns:
        `ok` if this job made all outputs (in an earlier delivery of the chunk), `skipped` if another job did.

    Raises:
        ObjectMissing: the source does not exist.
        ServiceError: S3 failed.
    """
    found = []
    for place in outputs:
        try:
            metadata = store.head(place).metadata
        except ObjectMissing:
            return None
        if not same_model_and_options(metadata, expected):
            return None
        found.append(metadata)
    info = store.head(source)
    facts = source_facts(etag=info.etag, size=info.size, modified=info.modified)
    if not all(same_source(metadata, facts, lambda: store.content_etag(source)) for metadata in found):
        return None
    own = all(metadata.get(JOB) == expected.get(JOB) for metadata in found)
    return OutcomeKind.OK if own else OutcomeKind.SKIPPED
