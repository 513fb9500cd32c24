"""Hostile messages that a client with a producer's rights could put into the queue, as kombu would read them there."""

from __future__ import annotations

import base64
import json
import pickle
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from worker.contract import redis_keys

Make = Callable[[Path], str]


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def envelope(body: bytes, *, content_type: str = "application/json", encoding: str = "utf-8", **headers: object) -> str:
    """Return a message as kombu writes it, with the producer's id and headers unless `headers` replaces them."""
    task = redis_keys.task_id("hostile", 0, 0)
    usual = {"lang": "py", "task": redis_keys.TASK_CHUNK, "id": task, "root_id": task, "parent_id": None, "group": None}
    usual |= {"eta": None, "expires": None, "timelimit": [None, None], "retries": 0, "argsrepr": "", "kwargsrepr": "{}"}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": usual | headers,
            "properties": {
                "correlation_id": task,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": redis_keys.QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": base64.b16encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
            },
        }
    )


def body(payload: object) -> bytes:
    """Return the body of a Celery message with one argument."""
    return json.dumps([[payload], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()


def chunk(**changes: object) -> dict[str, object]:
    """Return a chunk of a job that does not exist."""
    return {"schema_version": 1, "job": "hostile", "epoch": 0, "chunk": 0, "start": 0, "keys": ["a.png"], **changes}


def forged(job: str, *keys: str) -> str:
    """Return a well-formed message for the first chunk of a job."""
    task = redis_keys.task_id(job, 0, 0)
    return envelope(body(chunk(job=job, keys=keys)), id=task, root_id=task)


def _without(name: str) -> Make:
    return lambda _: json.dumps({key: value for key, value in json.loads(envelope(b"{}")).items() if key != name})


def _bomb(size: int) -> bytes:
    """Return `size` bytes of JSON, compressed to about a thousandth."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"[[")]
    parts += [packer.compress(b" " * 2**20) for _ in range(size // 2**20)]
    return b"".join([*parts, packer.compress(b"], {}, {}]"), packer.flush()])


DROPPED: dict[str, Make] = {
    "no JSON": lambda _: "not JSON",
    "deep": lambda _: "[" * 100_000,
    "no envelope": lambda _: "[1, 2]",
    "an empty envelope": lambda _: "{}",
    "no headers": _without("headers"),
    "no properties": _without("properties"),
    "no body": _without("body"),
    "headers that are a list": lambda _: json.dumps(json.loads(envelope(b"{}")) | {"headers": ["task"]}),
    "a body that is no base64": lambda _: json.dumps(json.loads(envelope(b"")) | {"body": "%%%"}),
    "pickle": lambda file: envelope(
        pickle.dumps([[Canary(file)], {}, {}]), content_type="application/x-python-serialize", encoding="binary"
    ),
    "YAML": lambda file: envelope(
        f"!!python/object/apply:os.system ['touch {file}']".encode(), content_type="application/x-yaml"
    ),
    "pickle that says it is JSON": lambda file: envelope(pickle.dumps([[Canary(file)], {}, {}])),
    "no arguments": lambda _: envelope(b"{}"),
    "another task": lambda _: envelope(body(chunk()), task="celery.backend_cleanup"),
    "no task": lambda _: envelope(body(chunk()), task=None),
    "a foreign id": lambda _: envelope(body(chunk()), id="../x"),
    "calls of other tasks": lambda _: envelope(body(chunk()).replace(b'"chain": null', b'"chain": [{"task": "x"}]')),
    "a date far ahead": lambda _: envelope(body(chunk()), eta="2099-01-01T00:00:00"),
    "its own time limits": lambda _: envelope(body(chunk()), timelimit=[1, 1]),
    "a hundred megabytes in a hundred kilobytes": lambda _: envelope(_bomb(2**27), compression="application/x-gzip"),
    "an unknown compression": lambda _: envelope(body(chunk()), compression="application/x-xz"),
    "no chunk": lambda _: envelope(body("text")),
    "a job with a path": lambda _: envelope(body(chunk(job="../../etc"))),
    "the id of another job's chunk": lambda _: envelope(body(chunk(job="another"))),
    "the id of another chunk": lambda _: envelope(body(chunk(chunk=1))),
    "the id of another epoch": lambda _: envelope(body(chunk(epoch=1))),
    "a number of its chunk that is none": lambda _: envelope(body(chunk(chunk=False))),
    "a key of two megabytes": lambda _: envelope(body(chunk(keys=["k" * 2**21]))),
}
"""Admission drops these messages."""

REFUSED: dict[str, Make] = {
    "a later schema": lambda _: envelope(body(chunk(schema_version=99))),
    "too many keys": lambda _: envelope(body(chunk(keys=["k"] * 257))),
    "a chunk of no job": lambda _: envelope(body(chunk())),
}
"""Admission accepts these messages; the runner refuses them because of their content."""


ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**32 - 1,
    2**63,
    10**30,
    0.5,
    1e308,
    "",
    "x",
    "a.b.c",
    "\x00",
    "\u202e",
    "9" * 300,
    "z" * 5000,
    [],
    {},
    [[[[[[]]]]]],
    {"task": "celery.chord_unlock"},
    [{"task": "celery.backend_cleanup", "args": [], "kwargs": {}}],
    [1, 2, 3],
    {"exchange": "x", "routing_key": "y"},
)
"""Values of types, sizes and forms that no producer writes."""

SURPLUS = ("callbacks", "errbacks", "chain", "chord", "group", "reply_to", "eta", "expires", "compression", "method")


def generated(count: int, seed: int) -> Iterator[str]:
    """Yield envelopes with one to four odd values in places that kombu or Celery reads, or with bytes changed."""
    draw = random.Random(seed)
    for _ in range(count):
        payload = chunk(keys=[f"{draw.random()}.png"])
        embedded: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        inner: list[Any] = [[payload], {}, embedded]
        outer = json.loads(envelope(body(payload)))
        for _ in range(draw.randint(1, 4)):
            _replace_one(draw, draw.choice([outer, outer["headers"], outer["properties"], payload, embedded, inner]))
        if "body" in outer and draw.random() < 0.5:
            outer["body"] = _encoded(inner)
        text = json.dumps(outer)
        if draw.random() < 0.2:
            at = draw.randrange(len(text))
            text = text[:at] + chr(draw.randrange(32, 127)) + text[at + draw.randrange(3) :]
        yield text


def _replace_one(draw: random.Random, place: Any) -> None:
    value = draw.choice(ODD_VALUES)
    if isinstance(place, list):
        place[draw.randrange(len(place))] = value
    elif isinstance(place, dict):
        name = draw.choice([*place, draw.choice(SURPLUS)])
        if name in {"headers", "properties"}:
            return  # later values go into them
        if draw.random() < 0.15:
            place.pop(name, None)
        else:
            place[name] = value


def _encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()
