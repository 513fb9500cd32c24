"""The S3 port: the only user of boto3.

Few verbs (`list`, `head`, `get`, `put`, `download`, `upload`), each on an `S3Url`, each answering with our own errors:
what is gone costs one image (`ObjectMissing`), what is refused stays refused (`AccessDenied`), what is down may be
tried again (`StoreUnavailable`).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
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
    """What a listing or HEAD tells about an object."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str]
    modified: float | None = None
    """Unix seconds, where it was asked for."""


class ObjectStore:
    """S3 as maskmill sees it. Thread-safe; make one per process, after any fork."""

    def __init__(self, settings: S3Settings, *, connections: int = 16) -> None:
        """Connect lazily: nothing is sent before the first call."""
        if bool(settings.access_key_id) != bool(settings.secret_access_key):
            raise SettingsError(
                "set both MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY, or neither (then the AWS "
                "chain of environment, profile and instance role is asked)"
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
                # Checksum trailers are refused by many S3-compatible servers, and cost CPU on every mask.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={} if _is_loopback(settings.endpoint_url) else None,
            ),
        )

    def list(self, folder: S3Url, *, beginning: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Every object under a folder, page by page in constant memory. Keys are relative to the folder.

        With `beginning`, only those whose relative key starts so; with `after`, only those that sort behind it.
        """
        self._check_allowed(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=folder.bucket,
            Prefix=folder.key + beginning,
            **({"StartAfter": folder.key + after} if after else {}),
        )
        with _translated(folder):
            for page in pages:
                for item in page.get("Contents", ()):
                    if item["Key"] != folder.key:
                        key = item["Key"].removeprefix(folder.key)
                        modified = item["LastModified"].timestamp()
                        yield ObjectInfo(key, item["Size"], item["ETag"].strip('"'), {}, modified)

    def head(self, place: S3Url) -> ObjectInfo:
        """Size, ETag and user metadata of one object.

        Raises:
            ObjectMissing: there is none.
        """
        self._check_allowed(place)
        with _translated(place):
            found = self._client.head_object(Bucket=place.bucket, Key=place.key)
        modified = found["LastModified"].timestamp()
        return ObjectInfo(
            place.key, found["ContentLength"], found["ETag"].strip('"'), found.get("Metadata", {}), modified
        )

    def get(self, place: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        """One object in memory.

        Raises:
            ObjectMissing: there is none.
            TooLarge: it has more than `max_bytes`; its body is not read.
        """
        self._check_allowed(place)
        with _translated(place):
            for _ in range(self._settings.attempts - 1):
                try:
                    return self._get_once(place, max_bytes)
                except _BROKEN_BODY:  # botocore repeats requests by itself, but not a body that breaks off
                    continue
            return self._get_once(place, max_bytes)

    def _get_once(self, place: S3Url, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        found = self._client.get_object(Bucket=place.bucket, Key=place.key)
        with contextlib.closing(found["Body"]) as body:
            if found["ContentLength"] > max_bytes:
                raise TooLarge(
                    f"{found['ContentLength']} bytes, the limit is {max_bytes}; raise MASKMILL_LIMITS__MAX_OBJECT_MIB"
                )
            data: bytes = body.read()
        return data, ObjectInfo(place.key, len(data), found["ETag"].strip('"'), found.get("Metadata", {}))

    def put(self, place: S3Url, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None) -> None:
        """Write one object, whole or not at all."""
        self._check_allowed(place)
        with _translated(place):
            self._client.put_object(
                Bucket=place.bucket, Key=place.key, Body=data, ContentType=content_type, Metadata=dict(metadata or {})
            )

    def delete(self, place: S3Url) -> None:
        """Remove one object; one that is not there is fine."""
        self._check_allowed(place)
        with _translated(place):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def download(self, place: S3Url, path: Path) -> None:
        """Stream one object to a file; the file appears under its name only when complete."""
        self._check_allowed(place)
        with _translated(place):
            self._client.download_file(place.bucket, place.key, str(path), Config=TransferConfig(use_threads=False))

    def upload(self, path: Path, place: S3Url, *, metadata: Mapping[str, str] | None = None) -> None:
        """Stream a file to an object, in parts when it is large."""
        self._check_allowed(place)
        with _translated(place):
            self._client.upload_file(
                str(path),
                place.bucket,
                place.key,
                ExtraArgs={"Metadata": dict(metadata or {})},
                Config=TransferConfig(use_threads=False),
            )

    def ensure_bucket(self, name: str) -> None:
        """Create a bucket of our own, unless it is there already."""
        with _translated(S3Url(name)):
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004 -- HTTP
                    raise
                self._client.create_bucket(Bucket=name)

    def check(self, folder: S3Url) -> None:
        """Ask for one key under a folder: proves address, credentials and bucket."""
        self._check_allowed(folder)
        with _translated(folder):
            self._client.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key, MaxKeys=1)

    def reach(self) -> None:
        """Any signed request: proves address and credentials when no bucket is known yet."""
        with _translated(S3Url("")):
            self._client.list_buckets()

    def close(self) -> None:
        """Close idle connections; servers wait for them when they stop."""
        self._client.close()

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_allowed(self, place: S3Url) -> None:
        allow = self._settings.allow
        if allow and not any(_covers(entry, place) for entry in allow):
            raise AccessDenied(f"{place} is not on the allow-list: extend MASKMILL_S3__ALLOW where that is intended")


def _covers(entry: str, place: S3Url) -> bool:
    """An entry names a folder: `bucket/photos` does not open `bucket/photos-private/`.

    Nor does `photos/../private/`: S3 itself takes that as a name like any other, but servers that keep objects in a
    file system, and proxies, may take it as a path.
    """
    bucket, _, prefix = entry.partition("/")
    folder = prefix and f"{prefix.rstrip('/')}/"
    if folder and {".", ".."} & set(place.key.split("/")):
        return False
    return place.bucket == bucket and place.key.startswith(folder)


def _is_loopback(endpoint_url: str | None) -> bool:
    """Whether a proxy of the environment must not be asked: it could not reach our loopback."""
    host = urlsplit(endpoint_url).hostname if endpoint_url else None
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _translated(place: S3Url) -> Iterator[None]:
    """Turn what boto3 raises into our errors, naming the place and never the credentials."""
    try:
        yield
    except ClientError as error:
        raise _client_error(error, place) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AccessDenied(
            "no S3 credentials: set MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY"
        ) from error
    except Boto3Error as error:  # file transfers wrap what went wrong
        if isinstance(error.__context__, ClientError):
            raise _client_error(error.__context__, place) from error
        raise StoreUnavailable(f"{place}: {error}") from error
    except (HTTPClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"{place}: {error}") from error


def _client_error(error: ClientError, place: S3Url) -> MaskmillError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket" or (code in _MISSING and not place.key):
        return ServiceError(f"bucket {place.bucket!r} does not exist: create it or correct the URL")
    if code in _MISSING:
        return ObjectMissing(f"{place} does not exist")
    if code in _DENIED or status in _REFUSED:
        return AccessDenied(f"{place}: S3 answered {code}; check the credentials and their rights")
    if code in _BUSY or status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS:
        return StoreUnavailable(f"{place}: S3 answered {code or status}")
    return ServiceError(f"{place}: S3 answered {code or status}")
