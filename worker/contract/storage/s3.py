"""The S3 client: with `s3_credentials`, the only module that uses boto3.

Its methods take an `S3Url` and raise maskmill's own errors: `ObjectMissing` fails one image, `AccessDenied` is
permanent, `CredentialsRefused` and `ClockSkewed` concern this process and not the object, and `StoreUnavailable` may be
retried.

S3-compatible servers and gateways leave out or rewrite headers. So ETag, Last-Modified and Content-Length are optional,
and names of metadata are lower-case whatever the server sends: names of HTTP headers have no case.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
import botocore.session
import urllib3.exceptions
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as AwsConnectionError
from botocore.utils import parse_timestamp

from worker.contract.errors import (
    CALLER_ERRORS,
    AccessDenied,
    ClockSkewed,
    CredentialsRefused,
    MaskmillError,
    ObjectArchived,
    ObjectMissing,
    QuotaExceeded,
    ServiceError,
    SettingsError,
    StoreUnavailable,
    TooLarge,
)
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings
from worker.contract.storage.s3_credentials import STILL_EXPIRED, LateCredentials, Renewal, credentials_from_files

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset({"401", "403", "AccessDenied"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
    | {"ExpiredTokenException", "InvalidClientTokenId", "NotSignedUp", "InvalidSecurity"}
)
"""Codes that speak of the caller: S3 does not know this process's key, secret or token."""

_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})
_THROTTLED = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "429"})
_BUSY = _THROTTLED | {"RequestTimeout", "RequestTimeoutException", "ServiceUnavailable"}
_CONFLICT = frozenset({"OperationAborted", "ConditionalRequestConflict", "ConflictException"})
"""Another request to the same object was in progress: status 409, which boto3 does not try again."""

_PASSING = (HTTPClientError, AwsConnectionError, IncompleteReadError, CredentialRetrievalError, MetadataRetrievalError)
"""Errors of botocore that may pass. All others, such as `ParamValidationError`, are the same at every attempt."""

_NO_ANSWER = (ReadTimeoutError, ConnectionClosedError)
"""The request was sent and not answered: S3 may hang, or fail for this object only."""

_BROKEN_BODY = (IncompleteReadError, ResponseStreamingError)
_NOT_IMPLEMENTED, _NO_SPACE, _TOO_MANY_REQUESTS = 501, 507, 429
_PASSING_STATUS = frozenset(range(500, 600)) - {_NOT_IMPLEMENTED} | {_TOO_MANY_REQUESTS}
_REFUSED = (401, 403)
_WITHOUT_REASON = ("400", "401", "403")
"""Codes of an error without a body, as HEAD gets it. The body of the same error of GET names the reason."""

_PIECE_BYTES = 1 << 20
_LEAST_RATE = 32 * 1024
"""Bytes per second below which an object fails; the slowest lines of nodes are a hundred times as fast."""

_NEIGHBOURS = 3
"""Objects read to find out whether S3 fails for one object or for all."""

_CONFLICT_PAUSE_SECONDS = 0.1
_KEYS = "maskmill_keys"
"""Name in the context of a request."""

_BLOCK_BYTES = 1024 * 1024

_USER_AGENT = f"maskmill boto3/{boto3.__version__}"
"""What S3 sees and logs as the client."""

_PART_BYTES = 5 * 1024 * 1024
"""Size of a part of a multipart upload; S3 takes 5 MiB or more, and 10,000 parts."""


@dataclass(frozen=True)
class ObjectInfo:
    """The attributes of an object from a listing, HEAD or GET."""

    key: str
    size: int | None
    """Bytes; None if the server does not say. After a GET it is always known."""

    etag: str
    """Without quotes and without the mark of a weak tag, so that both forms of one tag are equal; empty if the server
    does not send one."""

    metadata: Mapping[str, str]
    """User metadata by lower-case name."""

    modified: float | None = None
    """Time of the last change in Unix seconds; None if the server does not say."""


class ObjectStore:
    """Access to S3. Thread-safe. Create one per process, after any fork."""

    def __init__(self, settings: S3Settings, *, connections: int = 16) -> None:
        """Create a client. It connects at the first call.

        Args:
            settings: endpoint, credentials, time-outs and allow-list.
            connections: size of the connection pool.

        Raises:
            SettingsError: only one of access key and secret key is set.
        """
        if bool(settings.access_key_id) != bool(settings.secret_access_key):
            raise SettingsError(
                "set both MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY, or neither (then boto3 "
                "searches the AWS_* variables, the profile and the instance role)"
            )
        self._settings = settings
        session = _session(settings)
        self._renewal = Renewal(session.get_credentials())
        self._client: Any = session.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            verify=str(settings.ca_file) if settings.ca_file else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": settings.addressing_style},
                connect_timeout=settings.connect_timeout_seconds,
                read_timeout=settings.read_timeout_seconds,
                retries={"total_max_attempts": settings.attempts, "mode": "standard"},
                max_pool_connections=connections,
                tcp_keepalive=True,
                # Many S3-compatible servers refuse checksum trailers, and computing them costs CPU for every mask.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={} if is_loopback(settings.endpoint_url) else None,
                # botocore puts its own together anew for every request, for a quarter of a millisecond.
                user_agent=_USER_AGENT,
            ),
        )
        self._client.meta.events.register("before-sign.s3", self._note_keys)
        self._client.meta.events.register("needs-retry.s3", self._pause_before_retry)

    def list(self, folder: S3Url, *, beginning: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects under a folder in key order, page by page in constant memory.

        Args:
            folder: the folder; the keys of the results are relative to it.
            beginning: yield only relative keys with this prefix.
            after: yield only relative keys that sort after this one.
        """
        self._check_allowed(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=folder.bucket,
            Prefix=folder.key + beginning,
            **({"StartAfter": folder.key + after} if after else {}),
        )
        with _translate_errors(folder):
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].startswith(folder.key):
                        raise ServiceError(_outside_prefix(folder, item["Key"]))
                    if item["Key"] != folder.key:
                        yield _info(item["Key"].removeprefix(folder.key), item, size=item.get("Size"))

    def folders(self, folder: S3Url) -> Iterator[S3Url]:
        """Yield the folders that lie directly in a folder, in key order: the first parts of keys, with their slash."""
        self._check_allowed(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=folder.bucket, Prefix=folder.key, Delimiter="/"
        )
        with _translate_errors(folder):
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    yield S3Url(folder.bucket, item["Prefix"])

    def head(self, url: S3Url) -> ObjectInfo:
        """Return the size, ETag, user metadata and time of change of an object.

        Raises:
            ObjectMissing: the object does not exist.
        """
        self._check_allowed(url)
        with _translate_errors(url):
            while True:
                keys = self._renewal.keys()
                try:
                    found = self._client.head_object(Bucket=url.bucket, Key=url.key)
                    break
                except ClientError as error:
                    if _code(error) not in _WITHOUT_REASON:
                        raise
                    self._client.get_object(Bucket=url.bucket, Key=url.key)["Body"].close()  # raises it with its reason
                    if self._renewal.keys() == keys:  # else it renewed the keys that HEAD was refused with
                        raise
        return _info(url.key, found, size=found.get("ContentLength"))

    def content_etag(self, url: S3Url) -> str:
        """Return the ETag that a GET gives. Some servers and gateways give HEAD another one.

        Raises:
            ObjectMissing: the object does not exist.
        """
        self._check_allowed(url)
        with _translate_errors(url):
            found = self._client.get_object(Bucket=url.bucket, Key=url.key)
            found["Body"].close()
        return _etag(found)

    def get(self, url: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        """Return the content and attributes of an object.

        Raises:
            ObjectMissing: the object does not exist.
            TooLarge: the object has more than `max_bytes`. Its body is not read.
        """
        self._check_allowed(url)
        with _translate_errors(url):
            for _ in range(self._settings.attempts - 1):
                try:
                    return self._get_once(url, max_bytes)
                except _BROKEN_BODY:  # botocore retries requests, but not the read of a body
                    continue
            return self._get_once(url, max_bytes)

    def _get_once(self, url: S3Url, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        found = self._client.get_object(Bucket=url.bucket, Key=url.key)
        size = found.get("ContentLength")
        with contextlib.closing(found["Body"]) as body:
            if size is not None and size > max_bytes:
                raise TooLarge(f"{size} bytes, the limit is {max_bytes}; raise MASKMILL_LIMITS__MAX_OBJECT_MIB")
            data = _read_body(body, max_bytes + 1, self._settings.read_timeout_seconds)
        if size is not None and len(data) < size:
            raise IncompleteReadError(actual_bytes=len(data), expected_bytes=size)
        if len(data) > max_bytes:
            raise TooLarge(f"more than {max_bytes} bytes, the limit; raise MASKMILL_LIMITS__MAX_OBJECT_MIB")
        return data, _info(url.key, found, size=len(data))

    def _note_keys(self, request: Any, **_: Any) -> None:
        """Remember the keys that a request is about to be signed with."""
        request.context[_KEYS] = self._renewal.keys()

    def _pause_before_retry(self, response: Any, attempts: int, request_dict: dict[str, Any], **_: Any) -> float | None:
        """Answer botocore's question whether to try a request again, for answers that its own rules leave out."""
        code = "" if response is None else response[1].get("Error", {}).get("Code", "")
        # Renewed keys get one attempt more: the last one may have met a server that was away before.
        if code in _CREDENTIALS and attempts <= self._settings.attempts:
            return 0.0 if self._renewal.renew(request_dict["context"].get(_KEYS)) else None
        if attempts >= self._settings.attempts:
            return None
        return float(_CONFLICT_PAUSE_SECONDS * 2**attempts) if code in _CONFLICT else None

    def keys_changed_since(self, moment: float) -> bool:
        """Return whether the keys of this process have changed since a moment (`time.monotonic`)."""
        return self._renewal.changed_at >= moment

    def reads_others(self, url: S3Url) -> bool:
        """Return whether S3 serves other objects beside one for which it fails.

        Reads a byte of up to three neighbours in the same folder. Without a neighbour, or without the right to list,
        any answer to the listing counts.
        """
        folder = S3Url(url.bucket, url.key[: url.key.rfind("/") + 1])
        try:
            beside = (
                found for found in self.list(folder) if found.key != url.key[len(folder.key) :] and found.size != 0
            )
            neighbours = list(itertools.islice(beside, _NEIGHBOURS))
        except StoreUnavailable:
            return False
        except MaskmillError:  # no right to list: S3 answers, and that is all that can be known
            return True
        return not neighbours or any(self._reads(folder / found.key) for found in neighbours)

    def writes(self, url: S3Url) -> bool:
        """Return whether S3 stores an empty object at `url`."""
        try:
            self.put(url, b"", content_type="application/octet-stream")
        except MaskmillError:
            return False
        return True

    def _reads(self, url: S3Url) -> bool:
        try:
            with _translate_errors(url):
                body = self._client.get_object(Bucket=url.bucket, Key=url.key)["Body"]
                with contextlib.closing(body):
                    return bool(body.read(1))
        except MaskmillError:
            return False

    def put(self, url: S3Url, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object atomically."""
        self._check_allowed(url)
        with _translate_errors(url, writing=True):
            self._client.put_object(
                Bucket=url.bucket, Key=url.key, Body=data, ContentType=content_type, Metadata=dict(metadata or {})
            )

    def delete(self, url: S3Url) -> None:
        """Delete an object. Does nothing if it does not exist."""
        self._check_allowed(url)
        with _translate_errors(url):
            self._client.delete_object(Bucket=url.bucket, Key=url.key)

    def download(self, url: S3Url, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Stream an object to a file. The file appears under its name only when complete (atomic rename).

        Not by boto3's transfer, which needs Content-Length, and whose temporary name is longer than the file's: a name
        of 255 bytes could not be written. A body that breaks off is continued where it stopped, if its ETag is known.
        Unlike in `get`, no body is too slow: a person sees the progress and may have a slow line.

        Args:
            url: the object.
            path: the file, in an existing folder.
            on_bytes: gets the size of each block, negative when the transfer starts again from the first byte.

        Raises:
            ObjectMissing: the object does not exist.
            OSError: the file cannot be written.
        """
        self._check_allowed(url)
        part = path.parent / f".maskmill-{secrets.token_hex(6)}"
        told = on_bytes or (lambda count: None)
        try:
            with _translate_errors(url), part.open("xb") as file:
                etag = ""
                for attempts_left in reversed(range(self._settings.attempts)):
                    found = self._rest_of(url, file, etag, told)
                    etag = "" if found.get("ETag", "").startswith("W/") else _etag(found)
                    try:
                        with contextlib.closing(found["Body"]) as body:
                            for block in body.iter_chunks(_BLOCK_BYTES):
                                file.write(block)
                                told(len(block))
                        break
                    except _BROKEN_BODY:
                        if not attempts_left:
                            raise
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _rest_of(self, url: S3Url, file: BinaryIO, etag: str, told: Callable[[int], None]) -> dict[str, Any]:
        """Request the part of an object behind what `file` has, or all of it if that is not possible."""
        have = file.tell()
        if have and etag:
            with contextlib.suppress(ClientError):  # the object was replaced, or the server knows no ranges
                match = {"Range": f"bytes={have}-", "IfMatch": f'"{etag}"'}
                found: dict[str, Any] = self._client.get_object(Bucket=url.bucket, Key=url.key, **match)
                if "ContentRange" in found:
                    return found
                found["Body"].close()
        if have:
            file.seek(0)
            file.truncate()
            told(-have)
        whole: dict[str, Any] = self._client.get_object(Bucket=url.bucket, Key=url.key)
        return whole

    def upload(self, path: Path, url: S3Url, *, metadata: Mapping[str, str] | None = None) -> None:
        """Stream a file to an object, as a multipart upload if it is large."""
        self._check_allowed(url)
        with _translate_errors(url, writing=True):
            try:
                self._client.upload_file(
                    str(path),
                    url.bucket,
                    url.key,
                    ExtraArgs={"Metadata": dict(metadata or {})},
                    Config=TransferConfig(use_threads=False),
                )
            except KeyError as error:  # a multipart upload names every part by its ETag
                raise ServiceError(
                    f"{url}: S3 answered without {error}, which an upload in parts needs: check the gateway before it"
                ) from error

    def open_writer(self, url: S3Url, *, content_type: str) -> ObjectWriter:
        """Return a writer for an object that is made piece by piece, in constant memory and without a file."""
        self._check_allowed(url)
        return ObjectWriter(self, self._client, url, content_type)

    def ensure_bucket(self, name: str) -> None:
        """Create a bucket if it does not exist."""
        with _translate_errors(S3Url(name)):
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004 -- HTTP
                    raise
                self._client.create_bucket(Bucket=name)

    def check(self, folder: S3Url) -> None:
        """Check endpoint, credentials and bucket by listing at most one key under a folder."""
        self._check_allowed(folder)
        with _translate_errors(folder):
            self._client.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key, MaxKeys=1)

    def reach(self) -> None:
        """Check endpoint and credentials by listing the buckets, when no bucket is known yet."""
        with _translate_errors(S3Url("")):
            self._client.list_buckets()

    def probe(self) -> None:
        """Find out whether S3 accepts the credentials and the clock of this process, whatever its rights are.

        Raises:
            CredentialsRefused, ClockSkewed: it does not.
            StoreUnavailable: S3 cannot be asked.
        """
        try:
            self.reach()
        except (*CALLER_ERRORS, StoreUnavailable):
            raise
        except ServiceError:  # no right to list the buckets, or a server without that request
            return

    def close(self) -> None:
        """Close idle connections. A stopping server waits for them."""
        self._client.close()

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_allowed(self, url: S3Url) -> None:
        allow = self._settings.allow
        if allow and not any(_covers(entry, url) for entry in allow):
            raise AccessDenied(f"{url} is not on the allow-list: extend MASKMILL_S3__ALLOW if access is intended")


class ObjectWriter:
    """Writes one object piece by piece. It appears when the writer is closed; after an exception it does not.

    A small object takes one request, a large one a multipart upload.
    """

    def __init__(self, store: ObjectStore, client: Any, url: S3Url, content_type: str) -> None:
        """Send nothing yet. Use `ObjectStore.open_writer`."""
        self._store, self._client, self._url, self._content_type = store, client, url, content_type
        self._buffer = bytearray()
        self._upload: dict[str, Any] = {}
        self._etags: list[str] = []

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        if len(self._buffer) >= _PART_BYTES:
            self._send_part()

    def close(self) -> None:
        """Write the rest, and let the object appear."""
        if not self._upload:
            self._store.put(self._url, bytes(self._buffer), content_type=self._content_type)
            return
        if self._buffer:
            self._send_part()
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, start=1)]
        with _translate_errors(self._url, writing=True):
            self._client.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        """Give up: the parts that were sent are deleted, unless S3 fails; then its own rules delete them."""
        self._buffer.clear()
        if self._upload:
            with contextlib.suppress(MaskmillError), _translate_errors(self._url):
                self._client.abort_multipart_upload(**self._upload)

    def _send_part(self) -> None:
        place = {"Bucket": self._url.bucket, "Key": self._url.key}
        with _translate_errors(self._url, writing=True):
            if not self._upload:
                found = self._client.create_multipart_upload(**place, ContentType=self._content_type)
                self._upload = {**place, "UploadId": found["UploadId"]}
            number = len(self._etags) + 1
            sent = self._client.upload_part(**self._upload, PartNumber=number, Body=self._buffer)
        if "ETag" not in sent:
            raise ServiceError(
                f"{self._url}: S3 answered without an ETag, which an upload in parts needs: check the gateway before it"
            )
        self._etags.append(sent["ETag"])
        self._buffer = bytearray()

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _session(settings: S3Settings) -> boto3.session.Session:
    """Return a session with the keys of the settings, or, without any, with those that boto3 finds.

    Its clients read times without dateutil, which takes most of the time of a listing.
    """
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
    if from_files := credentials_from_files(settings):
        session._credentials = from_files  # the way to credentials of one's own; `set_credentials` makes fixed ones
    elif settings.access_key_id and settings.secret_access_key:
        token = settings.session_token and settings.session_token.get_secret_value()
        session.set_credentials(
            settings.access_key_id.get_secret_value(), settings.secret_access_key.get_secret_value(), token
        )
    elif session.get_credentials() is None:
        session._credentials = LateCredentials(session.get_component("credential_provider").load_credentials)
    return boto3.session.Session(botocore_session=session)


def _covers(entry: str, url: S3Url) -> bool:
    """Return whether an entry of the allow-list covers a URL.

    An entry names a folder: `bucket/photos` does not cover `bucket/photos-private/`, nor keys with `.` or `..` parts,
    such as `photos/../private/`: S3 treats these as plain names, but proxies and servers that store objects in a file
    system may resolve them as paths.
    """
    bucket, _, prefix = entry.partition("/")
    folder = prefix and f"{prefix.rstrip('/')}/"
    if folder and {".", ".."} & set(url.key.split("/")):
        return False
    return url.bucket == bucket and url.key.startswith(folder)


def is_loopback(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is on this host's loopback, which a proxy of the environment cannot reach."""
    host = urlsplit(endpoint_url).hostname if endpoint_url else None
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_time(value: Any) -> datetime:
    """Return the time in an answer: ISO 8601 in listings, RFC 9110 in headers; others as botocore reads them."""
    try:
        found = datetime.fromisoformat(value) if value[:1].isdecimal() else parsedate_to_datetime(value)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        return cast(datetime, parse_timestamp(value))
    return found


def _info(key: str, found: Mapping[str, Any], *, size: int | None) -> ObjectInfo:
    """Read what an answer or a line of a listing says about an object; every field but the key may be absent."""
    metadata = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
    modified = found.get("LastModified")
    return ObjectInfo(
        key, size, _etag(found), metadata, modified.timestamp() if isinstance(modified, datetime) else None
    )


def _etag(found: Mapping[str, Any]) -> str:
    return plain_etag(found.get("ETag") or "")


def plain_etag(text: str) -> str:
    """Return an ETag without quotes and without the mark `W/` of a weak tag."""
    return text.strip().removeprefix("W/").strip('"')


def _outside_prefix(folder: S3Url, key: str) -> str:
    folded = "/".join(part for part in folder.key.split("/") if part) + "/"
    if key.startswith(folded):
        right = S3Url(folder.bucket, folded)
        return f"{folder}: this server reads repeated slashes as one and lists {key!r}: write {right}"
    return f"{folder}: S3 lists {key!r}, which does not lie below it: the server or a gateway before it changes keys"


class _SlowBodyError(Exception):
    """The body of an object stops, or comes slower than `_LEAST_RATE`."""


def _read_body(body: Any, most: int, patience: float) -> bytes:
    """Return the body of an answer, or its first `most` bytes if it has more.

    botocore's limit is the time between two pieces, so a server that sends a byte now and then would never end. Here
    the body may take `patience` seconds and what it takes at `_LEAST_RATE`.

    Raises:
        ResponseStreamingError: the connection broke.
        _SlowBodyError: it takes longer, or nothing came for the time that botocore waits.
    """
    began, parts, got = time.monotonic(), [], 0
    try:
        with body as stream:  # the answer as urllib3 reads it: read1 returns what has come
            while got < most and (part := stream.read1(min(_PIECE_BYTES, most - got))):
                parts.append(part)
                got += len(part)
                if time.monotonic() - began > patience + got / _LEAST_RATE:
                    raise _SlowBodyError(f"its body came too slowly: {got} bytes in {time.monotonic() - began:.0f} s")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _SlowBodyError(f"its body stopped after {got} bytes") from error
    except urllib3.exceptions.ProtocolError as error:
        raise ResponseStreamingError(error=error) from error
    return b"".join(parts)


@contextlib.contextmanager
def _translate_errors(url: S3Url, *, writing: bool = False) -> Iterator[None]:
    """Convert errors of boto3 to maskmill's, with the URL and without credentials."""
    try:
        with _translate_expired_keys(url):
            yield
    except ClientError as error:
        raise _client_error(error, url, writing=writing) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise CredentialsRefused(
            "no S3 credentials: set MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY, or see why boto3 "
            "finds none (AWS_* variables, profile, role of the instance)"
        ) from error
    except Boto3Error as error:  # file transfers wrap the original error
        if isinstance(error.__context__, ClientError):
            raise _client_error(error.__context__, url, writing=writing) from error
        raise StoreUnavailable(f"{url}: {error}", bucket=url.bucket) from error
    except (*_BROKEN_BODY, _SlowBodyError) as error:
        raise StoreUnavailable(f"{url}: {error}", of_object=True, bucket=url.bucket) from error
    except _NO_ANSWER as error:
        raise StoreUnavailable(f"{url}: {error}", of_object=True, writing=writing, bucket=url.bucket) from error
    except _PASSING as error:
        raise StoreUnavailable(f"{url}: {error}", bucket=url.bucket) from error
    except BotoCoreError as error:
        raise ServiceError(f"{url}: the request is not possible: {error}") from error


@contextlib.contextmanager
def _translate_expired_keys(url: S3Url) -> Iterator[None]:
    """Convert the error that botocore raises when a role's service gives it keys that have expired."""
    try:
        yield
    except RuntimeError as error:
        if STILL_EXPIRED not in str(error):
            raise
        raise CredentialsRefused(
            f"{url}: the keys that this process was given have expired; check what gives them, and the clock"
        ) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


_ANSWERS: tuple[tuple[frozenset[str], type[MaskmillError], str], ...] = (
    (_CREDENTIALS, CredentialsRefused, "check the credentials of this process: key, secret and token"),
    (_CLOCK, ClockSkewed, "set the clock of this machine (NTP)"),
    (frozenset({"InvalidObjectState"}), ObjectArchived, "it is archived: restore it, then run `producer retry`"),
    (_DENIED, AccessDenied, "check the credentials and their rights"),
)
"""Codes, their error and its remedy."""


def _client_error(error: ClientError, url: S3Url, *, writing: bool) -> MaskmillError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    answer = f"{url}: S3 answered {code or status}"
    if code in _FULL or status == _NO_SPACE:
        return QuotaExceeded(f"{answer}; free space, or raise the quota of the bucket or user")
    if code in _BUSY | _CONFLICT or status in _PASSING_STATUS:
        throttled = code in _THROTTLED or status == _TOO_MANY_REQUESTS
        return StoreUnavailable(answer, of_object=not throttled, writing=writing, bucket=url.bucket)
    for codes, kind, remedy in _ANSWERS:
        if code in codes:
            return kind(f"{answer}; {remedy}")
    return _missing(code, url) or (AccessDenied if status in _REFUSED else ServiceError)(answer)


def _missing(code: str, url: S3Url) -> MaskmillError | None:
    if code == "NoSuchBucket" or (code in _MISSING and not url.key):
        # It may have vanished while jobs use it: they wait for it, and end when it is back.
        return StoreUnavailable(
            f"bucket {url.bucket!r} does not exist: create it or correct the URL", bucket=url.bucket
        )
    return ObjectMissing(f"{url} does not exist") if code in _MISSING else None
