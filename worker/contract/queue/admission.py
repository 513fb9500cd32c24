"""Admission of messages: drop every queue entry that is not a chunk message before Celery parses it.

Celery and kombu parse a message in the parent process of a worker and trust its form. Text that is not JSON, an
envelope without its fields, or a few hundred kilobytes that decompress to gigabytes would end that process; a task
with a start time in the far future would occupy its only slot. Without admission, one client that may write to the
queue could stop a fleet. A refused message is dropped and logged; if its chunk exists, the reconciler publishes it
again.

The model process validates the chunk itself (`ChunkMessage.read`).
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
"""Largest decompressed body: the longest keys of the largest chunk, each byte escaped as \\uXXXX, and 64 KiB more."""

COMPRESSION = "application/x-gzip"
"""kombu's name for zlib, the only compression that producers use."""


def admit(message: Any) -> None:
    """Check an envelope as kombu reads it from the queue.

    Raises:
        BadMessage: it does not have the form that producers write. The text gives one of a few fixed reasons, to be
            read after "message refused: ", and never any content.
    """
    if not isinstance(message, Mapping):
        raise BadMessage("the envelope is not an object")
    properties, headers, body = (message.get(name) for name in ("properties", "headers", "body"))
    if not isinstance(properties, Mapping) or not isinstance(headers, Mapping) or not isinstance(body, str):
        raise BadMessage("the envelope lacks properties, headers or body")
    delivery = properties.get("delivery_info")
    if not isinstance(delivery, Mapping) or not isinstance(properties.get("delivery_tag"), str):
        raise BadMessage("the envelope lacks a delivery tag")
    if delivery.get("exchange") != "" or delivery.get("routing_key") not in redis_keys.QUEUES:
        raise BadMessage("the envelope names another queue")
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        raise BadMessage("the content type is not JSON in UTF-8")
    if properties.get("body_encoding") != "base64":
        raise BadMessage("the body encoding is not base64")
    _admit_headers(headers)
    _admit_body(body, headers.get("compression"))


def _admit_headers(headers: Mapping[str, Any]) -> None:
    if headers.get("task") != redis_keys.TASK_CHUNK:
        raise BadMessage("unknown task")
    task = headers.get("id")
    if not isinstance(task, str) or redis_keys.parse_task_id(task) is None or task != headers.get("root_id"):
        raise BadMessage("the task id is not that of a chunk")
    if headers.get("eta") is not None or headers.get("expires") is not None:
        raise BadMessage("start and expiry times are not allowed")
    if any(limit is not None for limit in headers.get("timelimit") or ()):
        raise BadMessage("time limits are not allowed")


def _admit_body(body: str, compression: object) -> None:
    if compression not in (None, COMPRESSION):
        raise BadMessage("unknown compression")
    try:
        text = base64.b64decode(body, validate=True)
        if compression is not None:
            text = _decompressed(text)
    except (ValueError, zlib.error) as error:
        raise BadMessage("the body cannot be decompressed") from error
    if len(text) > MAX_BODY_BYTES:
        raise BadMessage(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        args, kwargs, embedded = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage("the body is not a task call") from error
    if not isinstance(args, list) or len(args) != 1 or kwargs != {} or not isinstance(embedded, dict):
        raise BadMessage("the arguments are not those of the chunk task")
    if any(embedded.values()):
        raise BadMessage("callbacks and chains are not allowed")  # Celery would send them


def _decompressed(packed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(packed, MAX_BODY_BYTES + 1)
    if len(text) <= MAX_BODY_BYTES and not decompressor.eof:
        raise BadMessage("the body is truncated")
    return text


class Channel(StockChannel):
    """A kombu channel that drops queue entries that are not JSON instead of raising."""

    def _brpop_read(self, **options: Any) -> Any:
        self.connection.delivering = False
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError):  # from the JSON parser, if nothing has been delivered yet
            if self.connection.delivering:
                raise
            log.error("dropped", extra=event("message_refused", reason="not JSON"))
            self.connection.on_refused("not JSON")
            return True


class Transport(StockTransport):
    """kombu's Redis transport with admission. Messages of other queues, such as replies, are not checked."""

    Channel = Channel
    delivering = False
    on_refused: Callable[[str], None] = staticmethod(lambda reason: None)
    """Called with the reason, one of a few fixed texts, for every message that is dropped. Set it to count them."""

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
