"""Admission of messages: let nothing but chunk messages through to Celery, and those only as they are rebuilt here.

Celery and kombu parse a message in the parent process of a worker and trust its form. Text that is not JSON, an
envelope without its fields, or a few hundred kilobytes that decompress to gigabytes would end that process; a task
with a start time in the far future would occupy its only slot; callbacks in a header would be sent. Without admission,
one client that may write to the queue could stop a fleet.

So an envelope is never passed on: a new one is made of the few values that a chunk message needs (task id, delivery
tag, queue, body), each of a known form and length. All other headers and properties have fixed values. A refused
message is dropped and logged, whatever went wrong, and does not return to the queue; if its chunk exists, the
reconciler publishes it again.

The model process validates the chunk itself (`ChunkMessage.read`), and the ledger compares its numbers with the job.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
import math
import re
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport.redis import Channel as StockChannel
from kombu.transport.redis import Transport as StockTransport

from worker.contract import redis_keys
from worker.contract.errors import BadMessage
from worker.contract.ledger.primary import ConnectionClosed, Primary
from worker.contract.log_fields import event
from worker.contract.messages import MAX_CHUNK_IMAGES, MAX_KEY_BYTES

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 + MAX_CHUNK_IMAGES * MAX_KEY_BYTES * 6
"""Largest decompressed body: the longest keys of the largest chunk, each byte escaped as \\uXXXX, and 64 KiB more."""

_MAX_ENCODED_BYTES = 4 * (MAX_BODY_BYTES // 3 + 1)
"""Base64 takes four characters for three bytes."""

COMPRESSION = "application/x-gzip"
"""kombu's name for zlib, the only compression that producers use."""


AWAIT_SECONDS = 3.0
"""Longest time that one attempt to connect waits for a new primary. A worker that is asked to stop does so after it."""

PAUSE_SECONDS = 1.0
"""Time before the next attempt if Redis takes no writes. Celery would connect ten times a second."""

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\.[0-9]{1,9}\.[0-9]{1,9}")
"""See `redis_keys.task_id`: the id of a job, its epoch and the number of a chunk."""

_DELIVERY_TAG = re.compile(r"[A-Za-z0-9-]{1,64}")
"""kombu makes these of a UUID."""

_NO_CALLS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
"""The third part of a body: tasks that Celery would send."""


def admit(message: Any) -> dict[str, Any]:
    """Return a new envelope for a chunk message.

    Args:
        message: an envelope as kombu reads it from the queue.

    Raises:
        BadMessage: it does not have the form that producers write. The text gives one of a few fixed reasons, to be
            read after "message refused: ", and never any content.
    """
    if not isinstance(message, dict):
        raise BadMessage("the envelope is not an object")
    properties, headers, body = (message.get(name) for name in ("properties", "headers", "body"))
    if not isinstance(properties, dict) or not isinstance(headers, dict) or not isinstance(body, str):
        raise BadMessage("the envelope lacks properties, headers or body")
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        raise BadMessage("the content type is not JSON in UTF-8")
    if properties.get("body_encoding") != "base64":
        raise BadMessage("the body encoding is not base64")
    compression = headers.get("compression")
    task = _task(headers)
    delivery = _properties(properties, task)
    _check_body(body, compression, task)
    redelivered = delivery["delivery_info"].get("redelivered", False)
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": _headers(task, compression, redelivered=redelivered),
        "properties": delivery,
    }


def _task(headers: dict[Any, Any]) -> str:
    """Return the id of the task."""
    task = headers.get("id")
    if headers.get("task") != redis_keys.TASK_CHUNK:
        raise BadMessage("unknown task")
    if not isinstance(task, str) or not _TASK_ID.fullmatch(task) or task != headers.get("root_id"):
        raise BadMessage("the task id is not that of a chunk")
    # Producers set none of these. Dropping them would run a message that its sender meant otherwise.
    if headers.get("eta") is not None or headers.get("expires") is not None:
        raise BadMessage("start and expiry times are not allowed")
    if headers.get("timelimit") not in (None, [None, None]):
        raise BadMessage("time limits are not allowed")
    return task


def _headers(task: str, compression: str | None, *, redelivered: bool) -> dict[str, Any]:
    job, _, chunk = task.split(".")
    optional = {"compression": compression, "redelivered": redelivered or None}
    return {
        "lang": "py",
        "task": redis_keys.TASK_CHUNK,
        "id": task,
        "root_id": task,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": f"({job!r}, chunk {chunk})",
        "kwargsrepr": "{}",
        "ignore_result": False,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _properties(properties: dict[Any, Any], task: str) -> dict[str, Any]:
    delivery, tag = properties.get("delivery_info"), properties.get("delivery_tag")
    if not isinstance(delivery, dict) or not isinstance(tag, str) or not _DELIVERY_TAG.fullmatch(tag):
        raise BadMessage("the envelope lacks a delivery tag")
    queue = delivery.get("routing_key")
    if delivery.get("exchange") != "" or queue not in redis_keys.QUEUES:
        raise BadMessage("the envelope names another queue")
    info: dict[str, Any] = {"exchange": "", "routing_key": queue}
    if delivery.get("redelivered") is True:
        info["redelivered"] = True
    return {
        "correlation_id": task,
        "delivery_mode": 2,
        "delivery_info": info,
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": tag,
    }


def _check_body(body: str, compression: object, task: str) -> None:
    """Check that a body is a call of the chunk task for the chunk of `task`, flat, and calls nothing else."""
    if compression not in (None, COMPRESSION):
        raise BadMessage("unknown compression")
    if len(body) > _MAX_ENCODED_BYTES:
        raise BadMessage(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        text = base64.b64decode(body, validate=True)
        if compression is not None:
            text = _decompressed(text)
    except (ValueError, zlib.error) as error:
        raise BadMessage("the body cannot be decompressed") from error
    if len(text) > MAX_BODY_BYTES:
        raise BadMessage(f"the body has more than {MAX_BODY_BYTES} bytes")
    _check_call(text, task)


def _check_call(text: bytes, task: str) -> None:
    try:
        args, kwargs, embedded = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage("the body is not a task call") from error
    if not isinstance(args, list) or len(args) != 1 or kwargs != {}:
        raise BadMessage("the arguments are not those of the chunk task")
    if embedded != _NO_CALLS:
        raise BadMessage("callbacks and chains are not allowed")  # Celery would send them
    if isinstance(args[0], dict) and not all(map(_is_flat, args[0].values())):
        raise BadMessage("the arguments are not those of the chunk task")
    if _task_of(args[0]) != task:  # its result would be stored for another chunk
        raise BadMessage("the task id is that of another chunk")


def _task_of(payload: Any) -> str | None:
    """Return the task id of a chunk message; None for anything else."""
    if not isinstance(payload, dict):
        return None
    return redis_keys.task_id(payload.get("job", ""), payload.get("epoch", 0), payload.get("chunk", -1))


def _is_flat(value: Any) -> bool:
    """Return whether a value of a chunk message is a plain one, or a list of plain ones."""
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value)
    )


def _decompressed(packed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    text = decompressor.decompress(packed, MAX_BODY_BYTES + 1)
    if len(text) <= MAX_BODY_BYTES and not decompressor.eof:
        raise BadMessage("the body is truncated")
    return text


class Channel(StockChannel):
    """A kombu channel that follows the primary, and drops queue entries that are not JSON instead of raising.

    Behind Sentinels it is this class too, not kombu's own for them: kombu takes each Sentinel for a broker, and after
    the first failed attempt it would go on with its own transport, without admission.
    """

    from_transport_options = (*StockChannel.from_transport_options, "primary")  # type: ignore[assignment]
    primary: Primary
    """Set by the transport options."""

    @property
    def connection_class(self) -> type[Any]:  # type: ignore[override]
        """Return the class of connections without TLS; kombu reads it."""
        return self.primary.connection_class(tls=False)

    @property
    def connection_class_ssl(self) -> type[Any]:  # type: ignore[override]
        """Return the class of connections with TLS; kombu reads it."""
        return self.primary.connection_class(tls=True)

    def close(self) -> None:
        """Close the channel and put back what it holds, also when the connection is lost.

        Raises connection errors and channel errors only: Celery would end on others instead of connecting again.
        """
        expected = (*Transport.connection_errors, *Transport.channel_errors)
        try:
            if self._in_poll:
                # The stock class would leave the channel open if this raised.
                with suppress(Empty, *expected):
                    self._brpop_read()
            try:
                super().close()  # type: ignore[no-untyped-call]
            except expected:
                if self.closed:
                    raise
                # The queue for remote commands could not be deleted. The sockets must not stay open for that.
                self.auto_delete_queues.clear()
                super().close()  # type: ignore[no-untyped-call]
        except expected:
            raise
        except Exception as error:
            raise ConnectionClosed(f"the channel could not be closed: {error!r:.200}") from error

    def _get_pool(self, asynchronous: bool = False) -> Any:
        if self.connection is None or self.connection.client is None:
            # Such as a late acknowledgement: Celery expects this error, and would end on that of the stock class.
            raise ConnectionClosed("the channel is closed")
        options = self._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=options["db"])
        return self.primary.pool(**options)

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

    _loop: Any = None
    _ticks: frozenset[Any] | set[Any] = frozenset()
    """What the event loop calls for this transport before it waits."""

    def establish_connection(self) -> Any:
        """Connect, after a wait for a primary if the Sentinels name none yet."""
        # Celery pauses for 2, 4, 6, ... s between attempts, so one attempt sits out the end of a failover.
        options: dict[str, Any] = self.client.transport_options  # type: ignore[union-attr]
        options["primary"].await_server(AWAIT_SECONDS)
        return super().establish_connection()  # type: ignore[no-untyped-call]

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let the event loop read from the connection. If that fails, close the connection and pause.

        It begins with putting back lost messages, so it fails while Redis takes no writes. Celery tries again at once
        with another connection, and would never close this one.
        """
        gc.collect()  # channels refer to each other: sockets of lost connections would stay open until some later time
        before = set(loop.on_tick)
        try:
            super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        except Exception:
            self.close_connection(connection)
            time.sleep(PAUSE_SECONDS)
            raise
        self._ticks, self._loop = loop.on_tick - before, loop

    def close_connection(self, connection: Any) -> None:
        """Close all channels, also those after one that fails, and leave the event loop."""
        if self._loop is not None:
            # kombu leaves its function there: the loop would call one more after each lost connection.
            self._loop.on_tick -= self._ticks
            self._loop = None
        left = math.inf
        while len(self._avail_channels) + len(self.channels) < left:
            left = len(self._avail_channels) + len(self.channels)
            try:
                super().close_connection(connection)  # type: ignore[no-untyped-call]
            except (*self.connection_errors, *self.channel_errors) as error:
                log.warning(error, extra=event("channel_not_closed"))

    def _deliver(self, message: Any, queue: str) -> None:
        self.delivering = True
        if queue in redis_keys.QUEUES:
            try:
                message = admit(message)
            except Exception as error:  # noqa: BLE001 -- a message must not end the process, whatever is wrong with it
                reason = str(error) if isinstance(error, BadMessage) else "its form is not that of a chunk message"
                log.error("dropped", extra=event("message_refused", reason=reason))
                self.on_refused(reason)
                return
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]
