"""Records of jobs as maskmill never writes them: by another version, by accident, or on purpose.

Each kind changes the keys of a job of six images in two chunks that is otherwise in order.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

from worker.contract.redis_keys import JobKeys

Change = Callable[[Any, JobKeys], object]
"""Called with a client of Redis and the keys of the job."""

WRONG_TYPES: dict[str, Change] = {
    "string": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "hash": lambda client, key: client.hset(key, "x", "y"),
    "set": lambda client, key: client.sadd(key, "x"),
    "zset": lambda client, key: client.zadd(key, {"x": 1}),
    "stream": lambda client, key: client.xadd(key, {"x": "y"}),
}

_OWN_TYPE = dict(
    zip(JobKeys._fields, ("hash", "string", "hash", "zset", "hash", "hash", "string", "list", "stream"), strict=True)
)

_INTEGERS = ("epoch", "chunk_images", "total", "bytes", "chunks", "cursor", "ok", "failed", "code:x", "model:m")
_TIMES = ("created_at", "queued_at", "beat_at", "submitted_at", "core_seconds", "wait_at")
_SCRIPT_NUMBERS = ("max_attempts", "max_failed", "max_failed_percent", "pardoned", "judged_after")
_NO_NUMBERS = {"text": "many", "empty": "", "negative": "-1", "2^64": str(2**64), "digits": "9" * 5000, "nan": "nan"}
_DEEP = "[" * 100_000


def set_field(name: str, value: object) -> Change:
    return lambda client, keys: client.hset(keys.record, name, value)


def _without(name: str) -> Change:
    return lambda client, keys: client.hdel(keys.record, name)


def _of_type(part: str, kind: str) -> Change:
    def change(client: Any, keys: JobKeys) -> None:
        key = getattr(keys, part)
        client.delete(key)
        WRONG_TYPES[kind](client, key)

    return change


def _options(**changes: object) -> str:
    return json.dumps({"source": "s3://bucket/in/", "dest": "s3://bucket/out/"} | changes)


UNREADABLE: dict[str, Change] = {
    f"{part} is a {kind}": _of_type(part, kind)
    for part, own in _OWN_TYPE.items()
    for kind in WRONG_TYPES
    if kind != own and (part == "record" or kind in ("string", "list", "hash"))
}
UNREADABLE |= {
    f"without {name}": _without(name)
    for name in ("job", "status", "options", "created_at", "total", "chunks", "chunk_images")
}
UNREADABLE |= {f"{name}: {kind}": set_field(name, text) for name in _INTEGERS for kind, text in _NO_NUMBERS.items()}
UNREADABLE |= {
    f"{name}: {kind}": set_field(name, text)
    for name in _TIMES
    for kind, text in (_NO_NUMBERS | {"inf": "inf", "far": "1e18"}).items()
}
UNREADABLE |= {f"{name}: text": set_field(name, "many") for name in _SCRIPT_NUMBERS}
UNREADABLE |= {
    f"{name}: {kind}": set_field(name, text)
    for name in ("options", "policy")
    for kind, text in {"empty": "", "no JSON": "{", "a list": "[]", "deep": _DEEP, "no UTF-8": b"\xff\xfe"}.items()
}
UNREADABLE |= {
    "2^32 images": set_field("total", 2**32),
    "more images than chunks": set_field("total", 600),
    "more chunks than images": set_field("chunks", 1000),
    "more published than there are": set_field("cursor", 3),
    "more done than images": set_field("ok", 7),
    "chunks of no image": set_field("chunk_images", 0),
    "chunks of a thousand images": set_field("chunk_images", 1000),
    "another job": set_field("job", "good"),
    "an unknown status": set_field("status", "dreaming"),
    "no status": set_field("status", ""),
    "no end": set_field("status", "closing"),
    "no such end": lambda client, keys: client.hset(keys.record, mapping={"status": "closing", "ending": "running"}),
    "a destination outside S3": set_field("options", _options(dest="/etc/")),
    "a destination longer than a key": set_field("options", _options(dest=f"s3://bucket/{'k' * 2000}/")),
    "an unknown output": set_field("options", _options(outputs=["hologram"])),
    "options that are too large": set_field("options", _options(name="n" * 600)),
    "a priority that is none": set_field("policy", '{"priority": "urgent"}'),
    "a traceparent that is none": set_field("traceparent", "x\r\ny"),
    "a reason of a megabyte": set_field("reason", "x" * 2**20),
    "a reason of ten pages": set_field("reason", "x" * 20_000),
    "a reason that is no UTF-8": set_field("reason", b"\xff"),
    "a field whose name is no UTF-8": lambda client, keys: client.hset(keys.record, b"code:\xff", "-1"),
    "a field with a name of a megabyte": lambda client, keys: client.hset(keys.record, "f" * 2**20, "x"),
    "a thousand fields": lambda client, keys: client.hset(keys.record, mapping={f"f{n}": n for n in range(1000)}),
    "states of a million images": lambda client, keys: client.setbit(keys.images, 4_000_000, 1),
    "a million chunks to publish": lambda client, keys: client.setbit(keys.returned, 1_000_000, 1),
    "a thousand chunks in flight": lambda client, keys: client.zadd(
        keys.outstanding, {str(number): 1 for number in range(1000)}
    ),
}
"""After these the job cannot be read."""

GARBAGE = ("", "x", "-1", "1.5", "nan", "inf", "1e400", str(2**63), "9" * 400, "{", "a\nb", b"\xff", "0" * 40)


def _hash_of_garbage(part: str, names: tuple[str, ...]) -> Change:
    def change(client: Any, keys: JobKeys) -> None:
        for number, value in enumerate(GARBAGE):
            client.hset(getattr(keys, part), names[number % len(names)], value)
            client.hset(getattr(keys, part), value or "empty", value)

    return change


def _log_of(*entries: dict[Any, Any]) -> Change:
    def change(client: Any, keys: JobKeys) -> None:
        for entry in entries:
            client.xadd(keys.log, entry)

    return change


_LINE = '{"index":0,"key":"0.jpg","kind":"ok"}'

TOLERATED: dict[str, Change] = {
    "log entries that are no outcomes": _log_of(
        {"x": "y"},
        {"o": ""},
        {"o": "x"},
        {"o": "[1]"},
        {"o": "{}"},
        {"o": "{" * 1000},
        {"o": _DEEP},
        {"o": b"\xff\xfe"},
        {"o": _LINE + "\n" + _LINE},
        {"o": '{"index":-1,"key":"0.jpg","kind":"ok"}'},
        {"o": f'{{"index":{2**70},"key":"0.jpg","kind":"ok"}}'},
        {"o": '{"index":0,"key":"0.jpg","kind":"vanished"}'},
        {"o": '{"index":0,"key":"0.jpg","kind":"ok","at":1e300,"seconds":-5}'},
        {"x": "y", "o": _LINE},
    ),
    "a log entry of a megabyte": _log_of({"o": f'{{"index":0,"key":"{"k" * 2**20}","kind":"ok"}}'}),
    "attempts that are no numbers": _hash_of_garbage("attempts", ("0", "1")),
    "suspects that are no images": _hash_of_garbage("suspects", ("chunk:0", "chunk:1", "deaths:0", "store:1")),
    "workers without a name": _hash_of_garbage("running", ("0", "1")),
    "failures that are no outcomes": lambda client, keys: client.rpush(keys.failures, *GARBAGE, "{}", "[]", _DEEP),
    "a million failures": lambda client, keys: client.rpush(keys.failures, *["x"] * 100_000),
    "chunks in flight that are none": lambda client, keys: client.zadd(keys.outstanding, {"-1": 1, "x" * 1000: 2}),
    "a chunk silent for ever": lambda client, keys: client.zadd(keys.outstanding, {"0": float("inf")}),
    "a chunk behind the end": lambda client, keys: client.setbit(keys.returned, 7, 1),
    "states that are none": lambda client, keys: client.set(keys.images, b"\xff\xee\xdd"),
    "chunks that are in no place": lambda client, keys: client.hset(keys.record, "cursor", 2),
    "a job that waits for ever": lambda client, keys: client.hset(
        keys.record, mapping={"wait_for": "\x1b[2J", "wait_at": 4e9, "wait_since": 0}
    ),
}
"""After these the job can be read; it ends, or can be cancelled."""


def packed(lines: bytes) -> bytes:
    return gzip.compress(lines, mtime=0)


PARTS: dict[str, bytes] = {
    "nothing": b"",
    "no gzip": b"not gzip",
    "an empty list": packed(b""),
    "half a part": packed(b'{"key":"0.jpg"}\n' * 6)[:20],
    "no JSON": packed(b"x\n" * 6),
    "no objects": packed(b"[1]\n" * 6),
    "deep JSON": packed(_DEEP.encode() + b"\n"),
    "empty lines": packed(b"\n" * 2**20),
    "too many lines": packed(b'{"key":"0.jpg"}\n' * 20_000),
    "too few lines": packed(b'{"key":"0.jpg"}\n'),
    "a line of a megabyte": packed(b'{"key":"' + b"k" * 2**20 + b'"}\n'),
    "a key longer than S3 allows": packed(b'{"key":"' + b"k" * 2000 + b'"}\n' * 6),
    "no UTF-8": packed(b'{"key":"\xff"}\n' * 6),
    "a number for a key": packed(b'{"key":7}\n' * 6),
    "an outcome of no image": packed(b'{"index":99999999999999999999,"key":"k","kind":"ok"}\n' * 6),
}
"""Contents of a part of the manifest, or of the outcome log, that maskmill never writes."""


def random_change(random_source: random.Random) -> Change:
    """Return a change of one of the kinds above, or of random fields and keys."""
    kinds = list(random_source.choice([UNREADABLE, TOLERATED]).values())
    if random_source.random() < 2 / 3:
        return random_source.choice(kinds)
    names = (*_INTEGERS, *_TIMES, *_SCRIPT_NUMBERS, "job", "status", "options", "policy", "ending", "reason")
    values = (*GARBAGE, "running", "closing", "stopping", "listing", "cancelled", "finished", "0", "3", "6", 2**31)
    chosen = [(random_source.choice(names), random_source.choice(values)) for _ in range(random_source.randint(1, 5))]

    def change(client: Any, keys: JobKeys) -> None:
        for name, value in chosen:
            client.hset(keys.record, name, value)
        if random_source.random() < 0.3:
            random_source.choice(kinds)(client, keys)

    return change
