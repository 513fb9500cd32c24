"""Serves a node's metrics and health over HTTP.

/metrics   Prometheus text
/healthz   200 while the steward works; liveness: a Redis that is down is no reason to restart a node
/readyz    200 while a worker process of this node is connected to the queue, else 503
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from worker.contract.errors import SetupError
from worker.contract.log_fields import event
from worker.contract.settings import MetricsSettings

log = logging.getLogger(__name__)

_SECONDS = 10.0
"""A client that says nothing for so long is let go."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class Exporter:
    """Runs in a thread of its own until closed."""

    def __init__(
        self,
        settings: MetricsSettings,
        registry: CollectorRegistry,
        *,
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        before_scrape: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen.

        Raises:
            SetupError: the port cannot be had.
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
                f"metrics cannot be served at {settings.address}:{port}: {error.strerror}; choose another "
                "MASKMILL_METRICS__PORT"
            ) from error
        self.port = self._server.server_port
        # It looks for its end in pauses, by default twice a second; `close` does not wait for one.
        threading.Thread(target=self._server.serve_forever, args=(3600,), name="exporter", daemon=True).start()
        log.info("metrics and probes", extra=event("http_listening", address=settings.address, port=self.port))

    def close(self) -> None:
        """Stop listening."""
        self._server.socket.shutdown(socket.SHUT_RDWR)  # ends its waiting
        self._server.shutdown()
        self._server.server_close()
