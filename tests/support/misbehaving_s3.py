"""A small S3 in memory that misbehaves as a test asks: odd headers, errors for some objects, bodies that break off.

It runs in the process of the test, without signatures, and speaks as much of the protocol as `ObjectStore` uses. It
complements the real server of the fixtures, which cannot be made to leave out an ETag.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from pydantic import SecretStr

from support.loopback import LoopbackServer, QuietHandler
from worker.contract.settings import S3Settings

MODIFIED = "Sun, 01 Nov 2026 00:00:00 GMT"
_META = "x-amz-meta-"
_LISTED = "2026-11-01T00:00:00.000Z"


@dataclass
class Refusal:
    """An error that the server answers with instead of doing what was asked."""

    status: int
    code: str
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "DELETE")
    part: str = ""
    """Only for keys that contain this text; a listing has the key ''."""

    bucket: str = ""
    """Only in this bucket; '': in all."""

    times: int | None = None
    """Number of requests that are refused; None: all."""

    access_key: str = ""
    """Only for requests with this access key; '': any."""


@dataclass
class Mode:
    """How the server differs from Amazon S3. Change it at any time."""

    refusals: list[Refusal] = field(default_factory=list)
    without: frozenset[str] = frozenset()
    """Headers of GET and HEAD, and elements of listings, that are left out: `ETag`, `Last-Modified`, `Size`, ..."""

    head_etag: Callable[[str], str] = lambda etag: etag
    """Changes the ETag in answers to HEAD."""

    metadata_name: Callable[[str], str] = lambda name: name
    """Changes the name of each metadata header: `str.title` does what Go's programs do."""

    chunked: bool = False
    """GET answers with chunked encoding, without Content-Length."""

    short: str = ""
    """The bodies of keys that contain this text break off in the middle; '': none."""

    slow: str = ""
    """The bodies of keys that contain this text come one byte at a time; '': none."""

    slow_seconds: float = 0.05
    """Seconds before each byte of a slow body."""

    hang: str = ""
    """Requests for keys that contain this text get no answer, until the client or the server gives up; '': none."""

    fail_every: int = 0
    """Every so many requests, one is answered with 500; 0: none. 20 is 5 %."""

    accepts: Callable[[str, str], bool] = lambda authorization, token: True
    """Tells from the Authorization header and the session token whether a request's keys are valid."""

    gone: frozenset[str] = frozenset()
    """Buckets that do not exist for the time being; what they hold comes back with them."""

    listing: bytes = b""
    """The answer to every listing, with status 200; b'': a true one."""

    listing_refusal: Refusal | None = None
    """The error that every listing is answered with."""

    fold: Callable[[str], str] = lambda key: key
    """Changes the key of each object that is stored or asked for, not the prefix of a listing's request."""


@dataclass
class Stored:
    """One object."""

    body: bytes
    metadata: dict[str, str] = field(default_factory=dict)
    modified: str = MODIFIED

    @property
    def etag(self) -> str:
        """ETag with quotes."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


class MisbehavingS3(LoopbackServer):
    """A context manager that runs the server in a thread. `objects` maps `bucket/key` to what is stored."""

    def __init__(self, mode: Mode | None = None) -> None:
        """Bind a port of the loopback."""
        super().__init__(_Handler)
        self.mode = mode or Mode()
        self.objects: dict[str, Stored] = {}
        self.requests: list[tuple[str, str]] = []
        self.agent = ""
        """User-Agent of the last request."""
        """Method and `bucket/key` of every request."""

        self.lock = threading.Lock()
        self.healed = threading.Event()
        """Set: requests that hang end without an answer."""

    def __exit__(self, *error: object) -> None:
        self.healed.set()
        super().__exit__(*error)

    def settings(self, **fields: Any) -> S3Settings:
        """Return settings for a client; two attempts for each request."""
        return S3Settings(
            **{
                "endpoint_url": self.endpoint_url,
                "access_key_id": SecretStr("key"),
                "secret_access_key": SecretStr("secret"),
                "addressing_style": "path",
                "attempts": 2,
                **fields,
            }
        )

    def put(self, place: str, body: bytes = b"x", **metadata: str) -> None:
        """Store an object at `bucket/key`."""
        self.objects[place] = Stored(body, metadata)

    def reset(self, mode: Mode) -> None:
        """Forget all objects and requests."""
        self.mode, self.objects, self.requests = mode, {}, []

    def count(self, method: str, place: str) -> int:
        """Return how often an object was asked for."""
        return self.requests.count((method, place))


class _Handler(QuietHandler):
    @property
    def s3(self) -> MisbehavingS3:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _, key = unquote(url.path[1:]).partition("/")
        place = f"{bucket}/{self.s3.mode.fold(key)}"
        with self.s3.lock:
            self.s3.agent = self.headers.get("User-Agent", "")
            self.s3.requests.append((self.command, f"{bucket}/{key}"))
            refusal = self.refusal(bucket, key)
            number = len(self.s3.requests)
        mode = self.s3.mode
        if mode.hang and mode.hang in key:
            self.close_connection = True
            self.s3.healed.wait()
            return
        if mode.fail_every and number % mode.fail_every == 0:
            refusal = Refusal(500, "InternalError")
        if bucket in mode.gone:
            refusal = Refusal(404, "NoSuchBucket")
        if not mode.accepts(self.headers.get("Authorization", ""), self.headers.get("X-Amz-Security-Token", "")):
            refusal = Refusal(400, "ExpiredToken")
        if refusal is not None:
            self.refuse(refusal.status, refusal.code)
        elif not key:
            query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            self.list(bucket, query)
        elif self.command == "PUT":
            metadata = self.metadata()
            self.s3.objects[place] = Stored(body, metadata)
            self.send(200, b"", {"ETag": self.s3.objects[place].etag})
        elif self.command == "DELETE":
            self.s3.objects.pop(place, None)
            self.send(204)
        elif place not in self.s3.objects:
            self.refuse(404, "NoSuchKey")
        else:
            self.give(key, self.s3.objects[place])

    def refusal(self, bucket: str, key: str) -> Refusal | None:
        authorization = self.headers.get("Authorization", "")
        for refusal in self.s3.mode.refusals:
            concerned = refusal.bucket in ("", bucket) and f"Credential={refusal.access_key}" in authorization
            if concerned and self.command in refusal.methods and refusal.part in key and refusal.times != 0:
                if refusal.times is not None:
                    refusal.times -= 1
                return refusal
        return None

    def metadata(self) -> dict[str, str]:
        named = {name.lower(): value for name, value in self.headers.items()}
        return {n.removeprefix(_META): value for n, value in named.items() if n.startswith(_META)}

    def refuse(self, status: int, code: str) -> None:
        self.send(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def give(self, key: str, stored: Stored) -> None:
        mode, etag, body, status = self.s3.mode, stored.etag, stored.body, 200
        if self.command == "HEAD":
            etag = mode.head_etag(etag)
        headers = {"ETag": etag, "Last-Modified": stored.modified}
        headers |= {mode.metadata_name(f"x-amz-meta-{name}"): value for name, value in stored.metadata.items()}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(body) - 1), len(body) - 1)
            status, body = 206, body[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(stored.body)}"
        short = bool(mode.short) and mode.short in key
        if mode.slow and mode.slow in key and self.command == "GET":
            self.drip(status, body, headers)
            return
        self.send(status, body, headers, chunked=mode.chunked and self.command == "GET", short=short)

    def send(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        chunked: bool = False,
        short: bool = False,
    ) -> None:
        self.send_response(status)
        headers = (headers or {}) | ({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": len(body)})
        for name, value in headers.items():
            if name not in self.s3.mode.without:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if short:
            self.close_connection = True
            body = body[: (len(body) + 1) // 2]
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else body)

    def drip(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has given up
            for byte in body:
                time.sleep(self.s3.mode.slow_seconds)
                self.wfile.write(bytes([byte]))

    def list(self, bucket: str, query: dict[str, str]) -> None:
        if self.command != "GET":
            self.send(200)
            return
        if not bucket:
            self.send(200, b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
            return
        if self.s3.mode.listing_refusal:
            self.refuse(self.s3.mode.listing_refusal.status, self.s3.mode.listing_refusal.code)
            return
        if self.s3.mode.listing:
            self.send(200, self.s3.mode.listing)
            return
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        places = sorted(place for place in self.s3.objects if place.startswith(f"{bucket}/"))
        keys = [place.partition("/")[2] for place in places]
        keys = [key for key in keys if key.startswith(self.s3.mode.fold(prefix)) and key > after]
        keys = keys[: int(query.get("max-keys", 1000))]
        parts = ["<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"]
        for key in keys:
            stored = self.s3.objects[f"{bucket}/{key}"]
            facts = {"Last-Modified": _LISTED, "ETag": escape(stored.etag), "Size": str(len(stored.body))}
            inner = "".join(
                f"<{name.replace('-', '')}>{value}</{name.replace('-', '')}>"
                for name, value in facts.items()
                if name not in self.s3.mode.without
            )
            parts.append(f"<Contents><Key>{quote(key)}</Key>{inner}</Contents>")
        self.send(200, "".join(parts).encode() + b"</ListBucketResult>", {"Content-Type": "application/xml"})

    do_GET = do_HEAD = do_PUT = do_DELETE = answer
