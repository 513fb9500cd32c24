"""The S3 client: the only module that uses boto3.

Its methods take an `S3Url` and raise maskmill's own errors: `ObjectMissing` fails one image, `AccessDenied` is
permanent, and `StoreUnavailable` may be retried.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from worker.contract.errors import (
    AccessDenied,
    MaskmillError,
    ObjectMissing,
    ServiceError,
    SettingsError,
    StoreUnavailable,
    TooLarge,
)
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "ServiceUnavailable"})
_BROKEN_BODY = (IncompleteReadError, ResponseStreamingError)
_SERVER_ERROR = 500
_REFUSED = (401, 403)
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class ObjectInfo:
    """The attributes of an object from a listing, HEAD or GET."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str]
    modified: float | None = None
    """Time of the last change in Unix seconds; None after a GET."""


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
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id and settings.access_key_id.get_secret_value(),
            aws_secret_access_key=settings.secret_access_key and settings.secret_access_key.get_secret_value(),
            aws_session_token=settings.session_token and settings.session_token.get_secret_value(),
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
            ),
        )

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
                    if item["Key"] != folder.key:
                        key = item["Key"].removeprefix(folder.key)
                        modified = item["LastModified"].timestamp()
                        yield ObjectInfo(key, item["Size"], item["ETag"].strip('"'), {}, modified)

    def head(self, url: S3Url) -> ObjectInfo:
        """Return the size, ETag, user metadata and time of change of an object.

        Raises:
            ObjectMissing: the object does not exist.
        """
        self._check_allowed(url)
        with _translate_errors(url):
            found = self._client.head_object(Bucket=url.bucket, Key=url.key)
        modified = found["LastModified"].timestamp()
        return ObjectInfo(
            url.key, found["ContentLength"], found["ETag"].strip('"'), found.get("Metadata", {}), modified
        )

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
        with contextlib.closing(found["Body"]) as body:
            if found["ContentLength"] > max_bytes:
                raise TooLarge(
                    f"{found['ContentLength']} bytes, the limit is {max_bytes}; raise MASKMILL_LIMITS__MAX_OBJECT_MIB"
                )
            data: bytes = body.read()
        return data, ObjectInfo(url.key, len(data), found["ETag"].strip('"'), found.get("Metadata", {}))

    def put(self, url: S3Url, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object atomically."""
        self._check_allowed(url)
        with _translate_errors(url):
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

        `on_bytes` is boto3's `Callback`: it gets the size of each block, negative when boto3 starts a request again.
        """
        self._check_allowed(url)
        with _translate_errors(url):
            self._client.download_file(
                url.bucket, url.key, str(path), Callback=on_bytes, Config=TransferConfig(use_threads=False)
            )

    def upload(self, path: Path, url: S3Url, *, metadata: Mapping[str, str] | None = None) -> None:
        """Stream a file to an object, as a multipart upload if it is large."""
        self._check_allowed(url)
        with _translate_errors(url):
            self._client.upload_file(
                str(path),
                url.bucket,
                url.key,
                ExtraArgs={"Metadata": dict(metadata or {})},
                Config=TransferConfig(use_threads=False),
            )

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


@contextlib.contextmanager
def _translate_errors(url: S3Url) -> Iterator[None]:
    """Convert errors of boto3 to maskmill's, with the URL and without credentials."""
    try:
        yield
    except ClientError as error:
        raise _client_error(error, url) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AccessDenied(
            "no S3 credentials: set MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY"
        ) from error
    except Boto3Error as error:  # file transfers wrap the original error
        if isinstance(error.__context__, ClientError):
            raise _client_error(error.__context__, url) from error
        raise StoreUnavailable(f"{url}: {error}") from error
    except (HTTPClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"{url}: {error}") from error


def _client_error(error: ClientError, url: S3Url) -> MaskmillError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket" or (code in _MISSING and not url.key):
        return ServiceError(f"bucket {url.bucket!r} does not exist: create it or correct the URL")
    if code in _MISSING:
        return ObjectMissing(f"{url} does not exist")
    if code in _DENIED or status in _REFUSED:
        return AccessDenied(f"{url}: S3 answered {code}; check the credentials and their rights")
    if code in _BUSY or status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS:
        return StoreUnavailable(f"{url}: S3 answered {code or status}")
    return ServiceError(f"{url}: S3 answered {code or status}")
