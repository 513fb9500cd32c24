"""A line between clients and a server that a test can cut, in each of the ways in which networks fail.

    client -> Proxy (127.0.0.1, a port of its own) -> server

What is held while the line is stalled arrives when it heals, as TCP would send it again; so does a command whose
sender gave up waiting long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

_BLOCK = 65536


class Proxy:
    """A TCP proxy in a thread of its own; `with Proxy(port) as proxy:`."""

    def __init__(self, target: int) -> None:
        """`target`: port of the server on 127.0.0.1."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds before each block is passed on: a slow line."""

        self.edit: Callable[[bytes], bytes] | None = None
        """Changes what the server answers; must keep the length."""

        self.port = 0

    def url(self, url: str) -> str:
        """The address of the server, by way of the proxy."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{self.port}"))

    @property
    def connections(self) -> int:
        """Connections that pass."""
        return sum(not link.silent for link in list(self._links))

    # -- what a test does -----------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Nothing gets through in either direction, and nobody is told: packets are dropped."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def heal(self) -> None:
        """Everything gets through again."""
        self._loop.call_soon_threadsafe(self._passing.set)

    def forget(self) -> None:
        """Connections that exist are dead for ever and both ends believe they live (half-open); new ones work."""
        for link in list(self._links):
            link.silent = True

    def reset(self) -> None:
        """All connections end with a reset (RST) on both sides."""
        self._call(self._reset())

    # -- life -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset()
        self._passing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for link in list(self._links):
            link.abort()

    # -- one connection -------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link([writer])
        self._links.add(link)
        try:
            await self._passing.wait()
            answers, requests = await asyncio.open_connection("127.0.0.1", self._target)
            link.writers.append(requests)
            await asyncio.gather(
                self._pump(link, reader, requests, None), self._pump(link, answers, writer, lambda: self.edit)
            )
        except (OSError, asyncio.CancelledError):
            pass  # one of the two sides is gone, or the test is over
        finally:
            link.abort()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        edit: Callable[[], Callable[[bytes], bytes] | None] | None,
    ) -> None:
        while block := await reader.read(_BLOCK):
            await asyncio.sleep(self.delay)
            await self._passing.wait()
            if link.silent:
                continue
            change = edit() if edit else None
            writer.write(change(block) if change else block)
            await writer.drain()
        await self._passing.wait()
        if link.silent:
            await asyncio.Event().wait()  # the other side never learns of the end
        with contextlib.suppress(OSError):
            writer.write_eof()


class _Link:
    """One connection: both of its sides."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.silent = False

    def abort(self) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # Zero seconds of lingering: the kernel sends RST, not FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
