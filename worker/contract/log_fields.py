"""Fields of a log record. They travel with the record as data; a formatter turns them into text at the end.

    log.warning("no bytes", extra=event("image_failed", job="J", chunk=3, image=17, code="empty"))

Every process that writes a log formats it with `worker.telemetry.logs`; in a program that embeds the producer, its own
logging configuration finds the same data as the attributes `event` and `fields` of the record.
"""

from __future__ import annotations


def event(name: str, /, **fields: object) -> dict[str, object]:
    """Return the `extra` argument of a log call.

    Args:
        name: a stable name of what happened; those of worker processes are listed in `worker.telemetry.events`.
        fields: facts that a program may read: ids, counts, error codes. Their order is kept.
    """
    return {"event": name, "fields": fields}
