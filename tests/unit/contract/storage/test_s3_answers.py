"""The S3 client against servers that leave out headers, rewrite them, or answer with unusual errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from botocore.utils import parse_timestamp

from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from worker.contract.errors import (
    AccessDenied,
    ClockSkewed,
    CredentialsRefused,
    ObjectArchived,
    QuotaExceeded,
    ServiceError,
    StoreUnavailable,
    TooLarge,
)
from worker.contract.s3url import S3Url
from worker.contract.storage import s3
from worker.contract.storage.s3 import ObjectStore

A = S3Url("b", "in/a.jpg")
MODIFIED = 1793491200.0


@pytest.fixture(scope="module")
def module_server():
    with MisbehavingS3() as server:
        yield server


@pytest.fixture(scope="module")
def store(module_server):
    with ObjectStore(module_server.settings()) as store:
        yield store


@pytest.fixture
def server(module_server):
    module_server.reset(Mode())
    module_server.put("b/in/a.jpg", b"content", **{"maskmill-model": "m"})
    return module_server


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """boto3 pauses before it tries a request again."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))


def put(store, url=A):
    store.put(url, b"new", content_type="image/png")


# -- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.02, 1.0])
def test_a_body_that_drips_or_stops_is_given_up(server, pause):
    """Botocore waits for each piece; a byte now and then would keep a worker busy for days."""
    server.put("b/in/slow.jpg", b"x" * 1000)
    server.mode.slow, server.mode.slow_seconds = "slow", pause
    with ObjectStore(server.settings(read_timeout_seconds=0.3)) as store:
        with pytest.raises(StoreUnavailable, match=r"in/slow\.jpg: its body (came too slowly|stopped after)") as caught:
            store.get(S3Url("b", "in/slow.jpg"), max_bytes=10_000)

        assert caught.value.of_object, "S3 itself answers"
        assert server.count("GET", "b/in/slow.jpg") == 1, "another try would take as long"
        assert store.get(A, max_bytes=100)[0] == b"content"


def test_a_slow_body_that_comes_in_time_is_whole(server):
    server.put("b/in/slow.jpg", b"0123456789")
    server.mode.slow, server.mode.slow_seconds = "slow", 0.02

    with ObjectStore(server.settings(read_timeout_seconds=5)) as store:
        assert store.get(S3Url("b", "in/slow.jpg"), max_bytes=10)[0] == b"0123456789"


# -- headers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [str.title, str.upper, str.lower])
def test_names_of_metadata_have_no_case(server, store, changed):
    """Servers and gateways written in Go send `X-Amz-Meta-Maskmill-Model`."""
    server.mode.metadata_name = changed

    assert store.head(A).metadata == {"maskmill-model": "m"}
    assert store.get(A, max_bytes=99)[1].metadata == {"maskmill-model": "m"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("ETag", (7, "", MODIFIED)),
        ("Last-Modified", (7, "9a0364b9e99bb480dd25e1f0284c8555", None)),
        ("Content-Length", (None, "9a0364b9e99bb480dd25e1f0284c8555", MODIFIED)),
    ],
)
def test_each_header_of_head_is_optional(server, store, header, expected):
    server.mode.without = frozenset({header})

    found = store.head(A)

    assert (found.size, found.etag, found.modified) == expected


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_each_header_of_get_is_optional(server, store, tmp_path, header):
    server.mode.without = frozenset({header})

    data, found = store.get(A, max_bytes=99)
    store.download(A, tmp_path / "file")

    assert (data, found.size, bool(found.etag)) == (b"content", 7, header != "ETag")
    assert found.modified == (None if header == "Last-Modified" else MODIFIED)
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_body_without_a_length_is_read_up_to_the_limit(server, store, tmp_path):
    server.mode.chunked = True

    data, found = store.get(A, max_bytes=7)
    store.download(A, tmp_path / "file")

    assert (data, found.size) == (b"content", 7)
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(TooLarge, match="more than 6 bytes"):
        store.get(A, max_bytes=6)


@pytest.mark.parametrize("element", ["ETag", "Last-Modified", "Size"])
def test_each_element_of_a_listing_is_optional(server, store, element):
    server.mode.without = frozenset({element})

    [found] = store.list(S3Url("b", "in/"))

    assert found.key == "a.jpg"
    assert (found.size is None, found.etag == "", found.modified is None) == (
        element == "Size",
        element == "ETag",
        element == "Last-Modified",
    )


def test_a_weak_and_a_strong_tag_are_equal(server, store):
    server.mode.head_etag = lambda etag: f"W/{etag}"

    assert store.head(A).etag == store.get(A, max_bytes=99)[1].etag == store.content_etag(A)


def test_the_tag_that_get_gives_is_available_beside_that_of_head(server, store):
    server.mode.head_etag = lambda etag: f'{etag[:-1]}-1"'

    assert store.head(A).etag == f"{store.content_etag(A)}-1"
    assert store.content_etag(A) == store.get(A, max_bytes=99)[1].etag


def test_a_download_continues_where_its_body_broke_off(server, store, tmp_path):
    body = bytes(range(256)) * 64
    server.put("b/in/big", body)
    server.mode.short = "big"
    told = []

    with ObjectStore(server.settings(attempts=20)) as patient:
        patient.download(S3Url("b", "in/big"), tmp_path / "file", told.append)

    assert (tmp_path / "file").read_bytes() == body
    assert (sum(told), min(told) > 0) == (len(body), True)  # never from the start


def test_a_download_starts_again_if_the_object_cannot_be_recognised(server, tmp_path):
    server.put("b/in/big", bytes(1000))
    server.mode.short, server.mode.without = "big", frozenset({"ETag"})
    told = []

    with ObjectStore(server.settings(attempts=3)) as store, pytest.raises(StoreUnavailable):
        store.download(S3Url("b", "in/big"), tmp_path / "file", told.append)

    assert told == [500, -500, 500, -500, 500]
    assert list(tmp_path.iterdir()) == []


def test_a_file_name_of_255_bytes_can_be_downloaded(store, tmp_path):
    path = tmp_path / ("ü" * 125 + "x.png")

    store.download(A, path)

    assert path.read_bytes() == b"content"


# -- listings -----------------------------------------------------------------------------------------------------


def test_a_server_that_folds_slashes_is_recognised(server, store):
    server.mode.fold = lambda key: key.replace("//", "/")

    with pytest.raises(ServiceError, match=r"reads repeated slashes as one .* write s3://b/in/$"):
        list(store.list(S3Url("b", "in//")))


def test_a_key_outside_the_prefix_is_refused(server, store):
    server.mode.fold = lambda key: ""

    with pytest.raises(ServiceError, match=r"s3://b/out/: S3 lists 'in/a.jpg', which does not lie below it"):
        list(store.list(S3Url("b", "out/")))


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "OperationAborted"),
        (409, "ConditionalRequestConflict"),
        (503, "SlowDownWrite"),
        (503, "Whatever"),
        (400, "RequestTimeout"),
        (500, "InternalError"),
    ],
)
def test_a_passing_answer_is_tried_again(server, store, status, code):
    server.mode.refusals = [Refusal(status, code, times=1)]
    put(store)
    server.mode.refusals = [Refusal(status, code)]

    with pytest.raises(StoreUnavailable, match=code) as raised:
        put(store)

    assert server.objects["b/in/a.jpg"].body == b"new"
    assert server.count("PUT", "b/in/a.jpg") == 4  # two attempts each
    assert raised.value.retryable and raised.value.writing


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((403, "InvalidObjectState"), ObjectArchived, "restore it"),
        ((403, "QuotaExceeded"), QuotaExceeded, "raise the quota"),
        ((507, "XMinioStorageFull"), QuotaExceeded, "raise the quota"),
        ((403, "RequestTimeTooSkewed"), ClockSkewed, "set the clock"),
        ((403, "InvalidAccessKeyId"), CredentialsRefused, "credentials of this process"),
        ((403, "SignatureDoesNotMatch"), CredentialsRefused, "credentials of this process"),
        ((400, "ExpiredToken"), CredentialsRefused, "credentials of this process"),
        ((403, "AccessDenied"), AccessDenied, "check the credentials and their rights"),
        ((501, "NotImplemented"), ServiceError, "NotImplemented|501"),
        ((400, "InvalidArgument"), ServiceError, "InvalidArgument"),
    ],
)
def test_an_answer_that_stays_has_its_own_error_and_remedy(server, store, answer, error, words):
    server.mode.refusals = [Refusal(*answer)]

    for call in (lambda: store.get(A, max_bytes=9), lambda: store.head(A), lambda: put(store)):
        with pytest.raises(error, match=words) as raised:
            call()
        assert type(raised.value) is error and not raised.value.retryable


def test_the_reason_of_an_error_that_head_hides_is_asked_for(server, store):
    """The answer to HEAD has no body, so it says 403 for a wrong key and for a missing right alike."""
    server.mode.refusals = [Refusal(403, "InvalidAccessKeyId", access_key="key")]

    with pytest.raises(CredentialsRefused):
        store.head(A)


def test_whether_an_object_or_the_service_fails_can_be_told(server, store):
    def broken(*refusals, short=""):
        server.mode.refusals, server.mode.short = list(refusals), short
        with pytest.raises(StoreUnavailable) as raised:
            store.get(A, max_bytes=99)
        return raised.value.of_object

    assert broken(Refusal(500, "InternalError"))
    assert broken(short="a.jpg")
    assert not broken(Refusal(503, "SlowDown"))  # throttled: it says nothing about the object
    away = server.settings(endpoint_url="http://127.0.0.1:1", attempts=1)
    with ObjectStore(away) as unreachable, pytest.raises(StoreUnavailable) as raised:
        unreachable.get(A, max_bytes=99)
    assert not raised.value.of_object


def test_a_request_that_boto_refuses_is_not_retryable(store):
    for call in (lambda: store.get(S3Url("b", ""), max_bytes=1), lambda: put(store, S3Url("no bucket!", "k"))):
        with pytest.raises(ServiceError, match="the request is not possible") as raised:
            call()
        assert not raised.value.retryable


def test_an_answer_that_is_not_s3s_is_no_traceback(server, store):
    server.mode.listing = b"<html><body>Please log in<br></body></html>"

    with pytest.raises(StoreUnavailable):
        list(store.list(S3Url("b", "in/")))


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 29 Nov 2026 10:06:44 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun, 29 Nov 2026 10:06:44 -0000",
        "2026-11-29T10:06:44.123Z",
        "2026-11-29T10:06:44",
        "2026-11-29T10:06:44+02:00",
        "20261129T100644Z",
        "1793491200",
        1793491200.5,
    ],
)
def test_times_are_those_that_botocore_reads(text):
    assert s3.read_time(text) == parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-29T10:06:44Z", None])
def test_what_is_no_time_is_refused_as_by_botocore(text):
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        parse_timestamp(text)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        s3.read_time(text)


def test_s3_sees_maskmill_as_the_client(server, store):
    store.head(A)

    assert server.agent.startswith("maskmill ")
