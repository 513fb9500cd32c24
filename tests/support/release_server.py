"""A release page on the loopback: files over TLS, with ranges, redirects and connections that break off."""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.certificates import Pair


@dataclass
class Release:
    """The server's state; change it between calls."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> content."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path -> address."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which each following download breaks off, first to last."""
    ranges: bool = True
    status: int = 0
    """Answered to everything, if set."""
    says_length: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range header) of every request."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    release: Release

    def do_GET(self) -> None:
        release, wanted = self.release, self.headers.get("Range", "")
        release.requests.append((self.path, wanted))
        if release.status:
            self._send(release.status, b"", {})
        elif self.path in release.redirects:
            self._send(302, b"", {"Location": release.redirects[self.path]})
        elif self.path not in release.files:
            self._send(404, b"", {})
        else:
            self._file(release.files[self.path], wanted)

    def _file(self, data: bytes, wanted: str) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(match[1]) if match and self.release.ranges else 0
        if start >= len(data) > 0:
            self._send(416, b"", {})
            return
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._send(206 if start else 200, data[start:], headers, cut=True)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        length = {"Content-Length": str(len(body))} if self.release.says_length or not cut else {}
        for name, value in (headers | length | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut and self.release.cuts:
            body = body[: self.release.cuts.pop(0)]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


class RunningRelease:
    """The server on a free port, in threads of this process. A context manager."""

    def __init__(self, server: Pair) -> None:
        self.release = Release()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"release": self.release}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # failed handshakes are what some tests are about
        self.release.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Release:
        self._thread.start()
        return self.release

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
