"""A proxy between the workers and S3 that logs each read and write of an object, and the process that made it.

The log is independent of the ledger. It supports HTTP/1.1 without chunked uploads, which is what boto3 uses with
the embedded server. For a time it can also make trouble, as a server under load or behind a bad network does.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

_PIECE = 64 * 1024

TROUBLE = {"errors": 0.05, "busy": 1.0, "hang": 0.2, "cut": 0.2}
"""Kind of trouble -> share of the requests that get it: an answer 500, an answer 503 SlowDown, no answer, or a closed
connection."""

_ANSWERS = {"errors": ("500 Internal Server Error", "InternalError"), "busy": ("503 Slow Down", "SlowDown")}


_PROCESS = re.compile(r"^user-agent:.* process/([^.\s]+)\.([\d.]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """One request for an object."""

    at: float
    """When it was passed on, or got its trouble (`time.monotonic`)."""

    method: str
    path: str
    """`/bucket/key`."""

    host: str
    pids: frozenset[int]
    """The process that made it and its ancestors; empty if it does not say (see `name_requests`)."""

    trouble: str
    """Kind of trouble that it got; empty: it was passed on."""


class S3Log:
    """A context manager that runs the proxy; workers use `endpoint`."""

    def __init__(self, upstream: str, address: str = "127.0.0.1", seed: int = 1) -> None:
        self._address, self._rng = address, random.Random(seed)
        self._trouble, self._until = "", 0.0
        self.troubled: Counter[str] = Counter()
        """Kind of trouble -> requests that got it."""
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname, parts.port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="s3-log", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()
        self.log: list[Request] = []
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def requests(self, method: str, prefix: str) -> dict[str, int]:
        """Return key under a prefix (`bucket/folder/`) -> number of requests with this method that were passed on."""
        head = f"/{prefix}"
        ours = (one for one in list(self.log) if one.method == method and not one.trouble and one.path.startswith(head))
        return Counter(one.path.removeprefix(head) for one in ours)

    def make_trouble(self, kind: str, seconds: float) -> None:
        """Give some requests of the next seconds trouble of a kind in `TROUBLE`."""
        self._trouble, self._until = kind, time.monotonic() + seconds

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, self._address, 0)
        self.endpoint = f"http://{self._address}:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        back: asyncio.Task[None] | None = None
        try:
            answers, upstream = await asyncio.open_connection(self._host, self._port)
            back = asyncio.create_task(_pump(answers, writer))
            while await self._request(reader, upstream, writer):
                pass
            upstream.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            if back is not None:
                back.cancel()
            writer.close()

    async def _request(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        length = next((int(f.split(":", 1)[1]) for f in fields if f.lower().startswith("content-length:")), 0)
        if kind := self._chosen():
            self._note(method, target, head, kind)
            return await self._troubled(kind, method, reader, client, length)
        upstream.write(head)
        await upstream.drain()
        while length > 0:
            piece = await reader.read(min(length, _PIECE))
            if not piece:
                return False  # the client died half-way, so nothing is written
            upstream.write(piece)
            await upstream.drain()
            length -= len(piece)
        self._note(method, target, head, "")
        return True

    def _note(self, method: str, target: str, head: bytes, trouble: str) -> None:
        path, _, query = target.partition("?")
        if query.startswith(("list-type", "delimiter", "prefix")):
            return
        found = _PROCESS.search(head.decode("latin-1"))
        host, pids = (found[1], found[2]) if found else ("", "")
        numbers = frozenset(int(pid) for pid in pids.split(".") if pid)
        self.log.append(Request(time.monotonic(), method, unquote(path), host, numbers, trouble))

    def _chosen(self) -> str:
        kind = self._trouble if time.monotonic() < self._until else ""
        if not kind or self._rng.random() >= TROUBLE[kind]:
            return ""
        self.troubled[kind] += 1
        return kind

    async def _troubled(
        self, kind: str, method: str, reader: asyncio.StreamReader, client: asyncio.StreamWriter, length: int
    ) -> bool:
        """Answer with an error, or not at all; return whether the connection goes on."""
        if kind == "hang":
            await asyncio.sleep(max(0.0, self._until - time.monotonic()))
        if kind not in _ANSWERS:
            return False
        await reader.readexactly(length)
        status, code = _ANSWERS[kind]
        body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code><Message>chaos</Message></Error>".encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        client.write(head.encode() + body)
        await client.drain()
        return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.close()
