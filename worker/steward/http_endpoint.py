"""Serve the metrics and the health of a node over HTTP.

/metrics   Prometheus text
/healthz   200 while the steward works, otherwise 503; for liveness probes. An unreachable Redis does not change it,
           because restarting the node would not help
/readyz    200 while a worker process of this node is connected to the queue, otherwise 503

Clients take at most `_CONNECTIONS` sockets and threads, each for `_SECONDS`. One connection too many ends the oldest
one: a scrape or a probe takes milliseconds, so the oldest is neither.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from worker.contract.errors import SetupError
from worker.contract.log_fields import event
from worker.contract.settings import MetricsSettings

log = logging.getLogger(__name__)

_SECONDS = 10.0
"""Longest time of a connection, from its start to the end of the answer."""

_CONNECTIONS = 16
"""Most connections at the same time."""

_ACCEPT_PAUSE_SECONDS = 0.2
"""Pause after a connection could not be accepted, for example because file descriptors have run out."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False  # connections are ended by `close`

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[socket.socket, threading.Timer] = OrderedDict()
        super().__init__(*args, **options)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; if that fails, do not try again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_ACCEPT_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread of its own, within the bounds of number and time."""
        timer = threading.Timer(_SECONDS, _hang_up, [request])
        timer.daemon = True
        with self._lock:
            self._open[request] = timer
            oldest = next(iter(self._open)) if len(self._open) > _CONNECTIONS else None
        if oldest is not None:
            _hang_up(oldest)
            self._forget(oldest)
        timer.start()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection after its answer, or after an error."""
        self._forget(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that goes away is no error of this node."""

    def hang_up(self) -> None:
        """End all connections."""
        for request in list(self._open):
            _hang_up(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            timer = self._open.pop(request, None)
        if timer is not None:
            timer.cancel()


def _hang_up(request: socket.socket) -> None:
    """End a connection: the thread that reads from it, or writes to it, gets an error."""
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line per scrape has no value."""


class HttpEndpoint:
    """Serves from a separate thread until closed."""

    def __init__(
        self,
        settings: MetricsSettings,
        registry: CollectorRegistry,
        *,
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        before_scrape: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to listen.

        Args:
            settings: address and port; without a port the system chooses one.
            registry: the metrics.
            healthy: answers `/healthz`.
            ready: answers `/readyz`.
            before_scrape: called before each answer to `/metrics`.

        Raises:
            SetupError: the port is not available.
        """
        metrics = make_wsgi_app(registry)

        def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                before_scrape()
                text: Iterable[bytes] = metrics(environ, start)
                return text
            probe = {"/healthz": healthy, "/readyz": ready}.get(path)
            code = "404 Not Found" if probe is None else "200 OK" if probe() else "503 Service Unavailable"
            start(code, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{code[4:].lower()}\n".encode()]

        port = settings.port or 0
        try:
            self._server = make_server(settings.address, port, answer, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            raise SetupError(
                f"cannot serve metrics at {settings.address}:{port}: {error.strerror}; choose another "
                "MASKMILL_METRICS__PORT"
            ) from error
        self.port = self._server.server_port
        # The server checks for its end at this interval, by default twice a second; `close` does not wait for it.
        threading.Thread(target=self._server.serve_forever, args=(3600,), name="exporter", daemon=True).start()
        log.info("metrics and probes", extra=event("http_listening", address=settings.address, port=self.port))

    def close(self) -> None:
        """Stop listening."""
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
