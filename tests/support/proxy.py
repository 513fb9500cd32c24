"""A TCP proxy between clients and a server, which fails in the ways in which networks fail.

    client -> Proxy (127.0.0.1, its own port) -> server

Bytes that arrive while the proxy stalls are passed on when it heals, as TCP retransmits them. That includes a command
whose sender has timed out since.
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
    """A context manager that runs the proxy in its own thread."""

    def __init__(self, target: int) -> None:
        """Prepare a proxy for the server on port `target` of 127.0.0.1."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds before each block is passed on: a slow network."""

        self.edit: Callable[[bytes], bytes] | None = None
        """Changes the answers of the server; must keep their length."""

        self.port = 0

    def url(self, url: str) -> str:
        """Return a URL of the server with the proxy's address in it."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{self.port}"))

    @property
    def connections(self) -> int:
        """Number of connections that are not half-open."""
        return sum(not link.half_open for link in list(self._links))

    # -- failures -------------------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Pass nothing in either direction, without an error on either side: packets are dropped."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def heal(self) -> None:
        """Pass everything again."""
        self._loop.call_soon_threadsafe(self._passing.set)

    def make_half_open(self) -> None:
        """Pass nothing over the existing connections ever again, without an error on either side; new ones work."""
        for link in list(self._links):
            link.half_open = True

    # -- start and stop -------------------------------------------------------------------------------------------

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
        await self._abort_all()
        self._passing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _abort_all(self) -> None:
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
            pass  # one side is gone, or the test has ended
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
            if link.half_open:
                continue
            change = edit() if edit else None
            writer.write(change(block) if change else block)
            await writer.drain()
        await self._passing.wait()
        if link.half_open:
            await asyncio.Event().wait()  # the other side must not see the end
        with contextlib.suppress(OSError):
            writer.write_eof()


class _Link:
    """Both sides of one connection."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.half_open = False

    def abort(self) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # With a linger time of 0 s the kernel sends RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
