"""The gate of the queues: what is no chunk message never reaches Celery.

Celery and kombu take a message apart in the parent process of a worker and trust its form: text that is no JSON, an
envelope without its fields or a few hundred kilobytes that unpack to gigabytes would end that process, and a task in
the far future would keep its only place. Whoever may put messages into the queue could stop a fleet. What is refused
here is dropped with a line in the log; a chunk that is really wanted is published again by the reconciler.

What it says of a chunk (`ChunkMessage.read`) is looked at in the child.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from kombu.transport.redis import Channel as StockChannel
from kombu.transport.redis import Transport as StockTransport

from worker.contract import redis_keys
from worker.contract.errors import BadMessage
from worker.contract.log_fields import event
from worker.contract.messages import MAX_CHUNK_IMAGES, MAX_KEY_BYTES

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 + MAX_CHUNK_IMAGES * MAX_KEY_BYTES * 6
"""Of a message, unpacked: as many keys as there may be, each byte escaped as \\uXXXX, and something for the rest."""

COMPRESSION = "application/x-gzip"
"""kombu's name for zlib, the only one that our producers use."""


def admit(message: Any) -> None:
    """Look at an envelope as kombu reads it off the queue.

    Raises:
        BadMessage: it is not of the form that our producers write; the text names what is wrong, not the content.
    """
    if not isinstance(message, Mapping):
        raise BadMessage("not an envelope")
    properties, headers, body = (message.get(name) for name in ("properties", "headers", "body"))
    if not isinstance(properties, Mapping) or not isinstance(headers, Mapping) or not isinstance(body, str):
        raise BadMessage("an envelope without properties, headers or body")
    delivery = properties.get("delivery_info")
    if not isinstance(delivery, Mapping) or not isinstance(properties.get("delivery_tag"), str):
        raise BadMessage("an envelope without a delivery tag")
    if delivery.get("exchange") != "" or delivery.get("routing_key") not in redis_keys.QUEUES:
        raise BadMessage("an envelope for another queue")
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        raise BadMessage("content that is not JSON in UTF-8")
    if properties.get("body_encoding") != "base64":
        raise BadMessage("a body that is not in base64")
    _admit_headers(headers)
    _admit_body(body, headers.get("compression"))


def _admit_headers(headers: Mapping[str, Any]) -> None:
    if headers.get("task") != redis_keys.TASK_CHUNK:
        raise BadMessage("another task")
    task = headers.get("id")
    if not isinstance(task, str) or redis_keys.parse_task_id(task) is None or task != headers.get("root_id"):
        raise BadMessage("an id that no chunk has")
    if headers.get("eta") is not None or headers.get("expires") is not None:
        raise BadMessage("a time before or after which to run")
    if any(limit is not None for limit in headers.get("timelimit") or ()):
        raise BadMessage("a time limit of its own")


def _admit_body(body: str, compression: object) -> None:
    if compression not in (None, COMPRESSION):
        raise BadMessage("an unknown compression")
    try:
        text = base64.b64decode(body, validate=True)
        if compression is not None:
            text = _unpacked(text)
    except (ValueError, zlib.error) as error:
        raise BadMessage("a body that cannot be unpacked") from error
    if len(text) > MAX_BODY_BYTES:
        raise BadMessage(f"a body of more than {MAX_BODY_BYTES} bytes")
    try:
        args, kwargs, embedded = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage("a body that is no call of a task") from error
    if not isinstance(args, list) or len(args) != 1 or kwargs != {} or not isinstance(embedded, dict):
        raise BadMessage("a body that is no call of our task")
    if any(embedded.values()):
        raise BadMessage("calls of other tasks")  # Celery would send them on


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed, MAX_BODY_BYTES + 1)
    if len(text) <= MAX_BODY_BYTES and not unpacker.eof:
        raise BadMessage("a body that breaks off")
    return text


class Channel(StockChannel):
    """Survives text in a queue that is no JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        self.connection.delivering = False
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError):  # of the JSON parser, where nothing has been delivered yet
            if self.connection.delivering:
                raise
            log.error("dropped", extra=event("message_refused", reason="not JSON"))
            self.connection.on_refused("not JSON")
            return True


class Transport(StockTransport):
    """kombu's Redis transport behind the gate. Messages that are not of our queues pass: replies, for example."""

    Channel = Channel
    delivering = False
    on_refused: Callable[[str], None] = staticmethod(lambda reason: None)
    """Told why, in one of a few fixed texts, each time something is dropped; whoever counts sets it."""

    def _deliver(self, message: Any, queue: str) -> None:
        self.delivering = True
        if queue in redis_keys.QUEUES:
            try:
                admit(message)
            except BadMessage as error:
                log.error("dropped", extra=event("message_refused", reason=str(error)))
                self.on_refused(str(error))
                return
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]
