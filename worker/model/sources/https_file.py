"""Download one file over HTTPS: resumed, limited in size, and never redirected to plain HTTP.

The caller compares the digest: TLS protects the way here, not the server's content. Proxies (`HTTPS_PROXY`) and
certificates (`SSL_CERT_FILE`) are those of the environment.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from worker.contract.errors import AccessDenied, BundleNotFound, DigestMismatch, HubUnavailable, ServiceError
from worker.contract.log_fields import event

log = logging.getLogger(__name__)

MAX_BYTES = 4 << 30
"""Limit for a file whose size is not known beforehand: the largest published checkpoint has 0.9 GB."""

PAUSE_SECONDS = 0.5
"""Pause after a broken connection; doubled with each attempt that brings no new byte."""

_ATTEMPTS = 3
"""Consecutive attempts without a new byte after which the download fails."""

_TIMEOUT_SECONDS = 20.0
"""Time without a byte after which a connection counts as broken."""

_BLOCK = 1 << 18
_PARTIAL, _NOT_FOUND, _GONE, _UNSATISFIABLE = 206, 404, 410, 416
_DENIED = frozenset({401, 403})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")

OnReceived = Callable[[int, int], None]
"""Called after each block with (bytes received so far, bytes in total or 0), those of earlier attempts included."""


def download(url: str, part: Path, *, size: int | None = None, on_received: OnReceived | None = None) -> None:
    """Download the rest of a file, reconnecting as long as each attempt brings new bytes.

    Args:
        url: address, `https://` only.
        part: file with the beginning, if there is one; kept if the connection fails.
        size: the size that the file must have; None if it is not known.
        on_received: called while the file downloads.

    Raises:
        HubUnavailable: several attempts brought no new byte.
        DigestMismatch: the file is larger than `size`, or than `MAX_BYTES`, or the server announces another size.
        BundleNotFound, AccessDenied, ServiceError: the server has no such file, or refuses it, or redirects to an
            address that is not `https://`.
        OSError: `part` cannot be written.
    """
    _Download(url, part, size, on_received).run()


@dataclass(frozen=True)
class _Download:
    url: str
    part: Path
    size: int | None
    on_received: OnReceived | None

    def run(self) -> None:
        """Send requests until the file is complete."""
        _require_https(self.url, self.url)
        opener = urllib.request.build_opener(_HttpsRedirects())
        self.part.touch()
        failures = 0
        while not (have := self.part.stat().st_size) or have != self.size:
            try:
                self._request(opener, have)
            except HubUnavailable as error:
                failures = 0 if self.part.stat().st_size > have else failures + 1
                if failures >= _ATTEMPTS:
                    raise
                log.warning(error, extra=event("download_resumed", offset=self.part.stat().st_size))
                time.sleep(PAUSE_SECONDS * 2**failures)
            else:
                return

    def _request(self, opener: urllib.request.OpenerDirector, have: int) -> None:
        """Append to the file what one request brings, from byte `have` on if the server supports ranges."""
        headers = {"User-Agent": "maskmill", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 -- https only, also after redirects
        try:
            with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                self._receive(response, have)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _UNSATISFIABLE and have:
                self.part.write_bytes(b"")  # the next attempt starts from the beginning
            raise _status_error(self.url, error.code) from error
        except urllib.error.URLError as error:
            raise HubUnavailable(_unreachable(self.url, error.reason)) from error
        except (http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            raise HubUnavailable(_unreachable(self.url, error)) from error

    def _receive(self, response: Any, have: int) -> None:
        """Write the body of a response to the file."""
        start, total = _extent(response, have)
        _check_size(self.url, total, self.size)
        limit, received = self.size or MAX_BYTES, start
        with self.part.open("ab" if start else "wb") as file:
            while block := response.read(_BLOCK):
                received += len(block)
                if received > limit:
                    raise DigestMismatch(f"{self.url}: the server sends more than {limit} bytes; check the address")
                file.write(block)
                if self.on_received:
                    self.on_received(received, total or self.size or 0)
        if received < (total or self.size or 0):
            raise HubUnavailable(
                f"{self.url}: the connection broke after {received} of {total or self.size} bytes; try again later"
            )


def _extent(response: Any, have: int) -> tuple[int, int]:
    """The position at which a body starts, and the size of the whole file (0 if the server does not say)."""
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else 0
    if response.status != _PARTIAL:
        return 0, size
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match["start"]) != have:
        raise ServiceError("the server answered a request for the rest of a file with another part of it")
    return have, int(match["total"]) if match["total"] != "*" else have + size


def _check_size(url: str, announced: int, size: int | None) -> None:
    if announced and size and announced != size:
        raise DigestMismatch(f"{url}: expected {size} bytes, the server announces {announced}; check the address")
    if announced > MAX_BYTES:
        raise DigestMismatch(f"{url}: {announced} bytes exceed the limit of {MAX_BYTES} bytes for one network")


def _status_error(url: str, status: int) -> ServiceError | BundleNotFound:
    if status in (_NOT_FOUND, _GONE):
        return BundleNotFound(f"{url}: there is no such file (status {status}); check the address")
    if status in _DENIED:
        return AccessDenied(f"{url}: the server refuses access (status {status}); check the address and the proxy")
    if status in _BUSY or status == _UNSATISFIABLE:
        return HubUnavailable(f"{url}: the server answered {status}; try again later")
    return ServiceError(f"{url}: the server answered {status}; check the address")


def _unreachable(url: str, reason: object) -> str:
    host = urlsplit(url).hostname
    return (
        f"{host} cannot be reached ({reason or type(reason).__name__}); check the network, the proxy (HTTPS_PROXY) and "
        "certificates (SSL_CERT_FILE)"
    )


def _require_https(url: str, origin: str) -> None:
    if urlsplit(url).scheme.lower() != "https":
        raise ServiceError(f"{origin} leads to {url}, which is not https://; refused")


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other https:// addresses only: release pages redirect to a store of another host."""

    def redirect_request(  # noqa: PLR0917 -- signature of the base class
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """See the base class."""
        _require_https(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # as the base
