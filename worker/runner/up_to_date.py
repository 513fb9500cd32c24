"""Whether the outputs of an image are there already, made from the same source by the same model and options.

Every output carries in its metadata what it was made of. A job submitted again does only what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from worker.contract.errors import ObjectMissing
from worker.contract.messages import OutcomeKind
from worker.contract.provenance import JOB, MODEL, OPTIONS, SOURCE_ETAG, same_model_and_options
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

__all__ = ["JOB", "MODEL", "OPTIONS", "SOURCE_ETAG", "standing"]


def standing(
    store: ObjectStore, source: S3Url, outputs: Iterable[S3Url], wanted: Mapping[str, str]
) -> OutcomeKind | None:
    """What an image is without doing anything; None if it has to be done.

    Args:
        store: where all of them are.
        source: the image.
        outputs: every output that it shall have.
        wanted: metadata of an output made now: `MODEL`, `OPTIONS`, `JOB`.

    Returns:
        `ok` when this very job made all outputs (in an earlier delivery of the chunk), `skipped` when another did.

    Raises:
        ObjectMissing: the source is gone.
        ServiceError: S3 did not do its part.
    """
    found = []
    for place in outputs:
        try:
            metadata = store.head(place).metadata
        except ObjectMissing:
            return None
        if not same_model_and_options(metadata, wanted):
            return None
        found.append(metadata)
    etags = {metadata.get(SOURCE_ETAG) for metadata in found}
    if etags != {store.head(source).etag}:
        return None
    own = all(metadata.get(JOB) == wanted.get(JOB) for metadata in found)
    return OutcomeKind.OK if own else OutcomeKind.SKIPPED
