"""The S3 client, against a real server and against one that closes connections early."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.contract.errors import (
    AccessDenied,
    ObjectMissing,
    ServiceError,
    SettingsError,
    StoreUnavailable,
    TooLarge,
)
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings
from worker.contract.storage.s3 import ObjectStore

UNUSUAL_KEYS = [
    "a b.jpg",
    "#1.jpg",
    "100%.jpg",
    "%41.jpg",
    "a+b.jpg",
    "ü/日本.jpg",
    "q?x=1&y=2.jpg",
    "quote'\".jpg",
    "~.jpg",
]


def put(store: ObjectStore, place: S3Url, data: bytes = b"x") -> None:
    store.put(place, data, content_type="image/jpeg")


def test_what_is_put_comes_back_with_its_metadata(store, installation):
    url = S3Url(installation.bucket, "d/a.jpg")

    store.put(url, b"bytes", content_type="image/jpeg", metadata={"maskmill-model": "abc"})
    data, got = store.get(url, max_bytes=5)
    seen = store.head(url)

    assert data == b"bytes"
    assert (got.key, got.size, dict(got.metadata)) == ("d/a.jpg", 5, {"maskmill-model": "abc"})
    assert (seen.key, seen.size, dict(seen.metadata)) == ("d/a.jpg", 5, {"maskmill-model": "abc"})
    assert got.etag == seen.etag == next(store.list(S3Url(installation.bucket, "d/"))).etag
    assert got.etag and '"' not in got.etag


def test_an_object_is_replaced_whole(store, installation):
    url = S3Url(installation.bucket, "a")
    store.put(url, b"longer than the next", content_type="image/png", metadata={"old": "1"})
    put(store, url, b"new")

    data, info = store.get(url, max_bytes=100)

    assert (data, dict(info.metadata)) == (b"new", {})


def test_a_listing_gives_every_key_under_the_folder_relative_to_it(store, installation):
    folder = S3Url.folder(f"s3://{installation.bucket}/in")
    for key in ("in/a.jpg", "in/d/b.jpg", "in2/c.jpg", "i.jpg"):
        put(store, S3Url(installation.bucket, key), key.encode())

    found = list(store.list(folder))

    assert [(item.key, item.size) for item in found] == [("a.jpg", 8), ("d/b.jpg", 10)]
    assert [item.key for item in store.list(S3Url(installation.bucket))] == [
        "i.jpg",
        "in/a.jpg",
        "in/d/b.jpg",
        "in2/c.jpg",
    ]
    assert list(store.list(S3Url(installation.bucket, "none/"))) == []


def test_a_long_listing_comes_page_by_page(store, installation):
    folder = S3Url(installation.bucket, "many/")
    for index in range(25):
        put(store, folder / f"{index:05d}.jpg")
    events, pages = store._client.meta.events, []
    # Pages of ten instead of a thousand make the test fast; the responses have the same form.
    events.register("provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 10})
    events.register("after-call.s3.ListObjectsV2", lambda **_: pages.append(1))

    listing = store.list(folder)
    first = next(listing)
    after_one = len(pages)
    keys = [first.key, *(item.key for item in listing)]

    assert keys == [f"{index:05d}.jpg" for index in range(25)]
    assert (after_one, len(pages)) == (1, 3)  # pages are read on demand: memory stays constant


@pytest.mark.parametrize("key", UNUSUAL_KEYS)
def test_unusual_keys_survive_every_method(store, installation, tmp_path, key):
    folder = S3Url(installation.bucket, "in/")
    local = tmp_path / "file"
    local.write_bytes(b"uploaded")

    put(store, folder / key, b"content")
    data, info = store.get(folder / key, max_bytes=100)
    [listed] = store.list(folder)
    store.upload(local, folder / key)
    store.download(folder / key, tmp_path / "back")

    assert (data, info.key) == (b"content", f"in/{key}")
    assert listed.key == key
    assert store.head(folder / key).size == len(b"uploaded")
    assert (tmp_path / "back").read_bytes() == b"uploaded"


def test_a_listed_key_with_an_empty_folder_name_can_be_fetched(store, installation):
    """The embedded server collapses `//`. Any key that a server lists must lead back to the object."""
    folder = S3Url(installation.bucket, "in/")
    put(store, folder / "a//b.jpg", b"content")

    [listed] = store.list(folder)

    assert store.get(folder / listed.key, max_bytes=100)[0] == b"content"


@pytest.mark.parametrize("folder", ["in//", "in///", "/in/"])
def test_a_folder_whose_slashes_the_server_folds_is_refused_with_the_right_one(store, installation, folder):
    """Each of its keys would lead to no object."""
    put(store, S3Url(installation.bucket, "in/a.jpg"))

    with pytest.raises(ServiceError, match=f"write s3://{installation.bucket}/in/$"):
        list(store.list(S3Url(installation.bucket, folder)))


@pytest.mark.parametrize("method", ["get", "head", "download"])
def test_a_missing_object_is_named(store, installation, tmp_path, method):
    url = S3Url(installation.bucket, "d/gone.jpg")
    calls = {
        "get": lambda: store.get(url, max_bytes=1),
        "head": lambda: store.head(url),
        "download": lambda: store.download(url, tmp_path / "file"),
    }

    with pytest.raises(ObjectMissing, match=f"s3://{installation.bucket}/d/gone.jpg"):
        calls[method]()

    assert list(tmp_path.iterdir()) == []


def test_a_missing_bucket_is_distinguished_from_a_missing_object(store, tmp_path):
    gone = S3Url("there-is-no-such-bucket")
    (tmp_path / "file").write_bytes(b"x")
    calls = [
        lambda: list(store.list(gone)),
        lambda: store.check(gone),
        lambda: store.get(gone / "a", max_bytes=1),
        lambda: put(store, gone / "a"),
        lambda: store.upload(tmp_path / "file", gone / "a"),
    ]

    for call in calls:
        with pytest.raises(ServiceError, match="bucket 'there-is-no-such-bucket' does not exist") as raised:
            call()
        assert raised.value.retryable, "it may come back: jobs that use it wait"
    assert not raised.value.of_object


def test_a_big_object_is_refused_before_its_body_is_read(store, installation):
    url = S3Url(installation.bucket, "big")
    put(store, url, bytes(32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="33554432 bytes, the limit is 1000; raise MASKMILL_LIMITS__MAX_OBJECT_MIB"):
            store.get(url, max_bytes=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20
    assert store.get(url, max_bytes=32 << 20)[1].size == 32 << 20


def test_large_files_are_transferred_in_parts(store, installation, tmp_path):
    content = bytes(range(256)) * (36 << 12)  # 36 MiB: a part has 8 MiB
    (tmp_path / "up").write_bytes(content)

    store.upload(tmp_path / "up", S3Url(installation.bucket, "big"))
    store.download(S3Url(installation.bucket, "big"), tmp_path / "down")

    assert (tmp_path / "down").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "up"]


# -- credentials and addresses ------------------------------------------------------------------------------------


def changed(installation, **fields) -> ObjectStore:
    return ObjectStore(installation.settings.s3.model_copy(update=fields))


@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key"])
def test_wrong_credentials_are_refused_without_naming_them(store, installation, field):
    wrong = "wrong-and-secret-0123456789"
    url = S3Url(installation.bucket, "a")
    put(store, url)

    with changed(installation, **{field: SecretStr(wrong)}) as other:
        for call in (
            lambda: other.get(url, max_bytes=9),
            lambda: other.head(url),
            lambda: list(other.list(S3Url(installation.bucket))),
            lambda: put(other, url),
            other.reach,
        ):
            with pytest.raises(AccessDenied, match="check the credentials") as raised:
                call()
            right = installation.settings.s3.secret_access_key.get_secret_value()
            assert wrong not in str(raised.value) and right not in str(raised.value)


def test_half_of_a_pair_of_credentials_is_refused(installation):
    with pytest.raises(SettingsError, match="MASKMILL_S3__ACCESS_KEY_ID and MASKMILL_S3__SECRET_ACCESS_KEY"):
        changed(installation, secret_access_key=None)


def test_missing_credentials_are_reported(installation, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")

    with (
        changed(installation, access_key_id=None, secret_access_key=None) as store,
        pytest.raises(AccessDenied, match="no S3 credentials"),
    ):
        store.head(S3Url(installation.bucket, "a"))


def test_an_unreachable_server_is_reported_quickly(installation):
    with changed(installation, endpoint_url="http://127.0.0.1:1", attempts=1) as store:
        began = time.monotonic()
        for call in (
            store.reach,
            lambda: store.get(S3Url("b", "k"), max_bytes=1),
            lambda: list(store.list(S3Url("b"))),
        ):
            with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as raised:
                call()
            assert raised.value.retryable

    assert time.monotonic() - began < 5


def test_the_loopback_is_reached_without_the_proxies_of_the_environment(store, installation, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    with changed(installation) as other:
        assert list(other.list(S3Url(installation.bucket))) == []


# -- the allow-list -----------------------------------------------------------------------------------------------

METHODS: dict[str, Callable[[ObjectStore, S3Url, Path], object]] = {
    "list": lambda store, url, file: list(store.list(url)),
    "head": lambda store, url, file: store.head(url),
    "get": lambda store, url, file: store.get(url, max_bytes=9),
    "put": lambda store, url, file: put(store, url),
    "download": lambda store, url, file: store.download(url, file.with_suffix(".down")),
    "upload": lambda store, url, file: store.upload(file, url),
    "check": lambda store, url, file: store.check(url),
}


@pytest.mark.parametrize("method", METHODS)
def test_no_method_leaves_the_allow_list(tmp_path, method):
    """Nothing is sent either: the endpoint is unreachable, which would raise another error."""
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    outside = [S3Url("bucket", key) for key in ("", "in", "in2/a", "inside/a", "other/in/a", "/in/a", "IN/a")]
    settings = S3Settings(
        endpoint_url="http://127.0.0.1:1",
        access_key_id=SecretStr("a"),
        secret_access_key=SecretStr("b"),
        attempts=1,
        allow=("bucket/in/",),
    )

    with ObjectStore(settings) as fenced:
        for url in (*outside, S3Url("bucket2", "in/a"), S3Url("Bucket", "in/a"), S3Url("", "bucket/in/a")):
            with pytest.raises(AccessDenied, match="allow-list: extend MASKMILL_S3__ALLOW"):
                METHODS[method](fenced, url, file)
        with pytest.raises(StoreUnavailable):
            METHODS[method](fenced, S3Url("bucket", "in/a"), file)


@pytest.mark.parametrize("entry", ["{bucket}", "{bucket}/in/", "{bucket}/"])
def test_every_method_works_inside_the_allow_list(store, installation, tmp_path, entry):
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    put(store, S3Url(installation.bucket, "in/d/a"))

    with changed(installation, allow=("elsewhere", entry.format(bucket=installation.bucket))) as fenced:
        for call in METHODS.values():
            call(fenced, S3Url(installation.bucket, "in/d/a"), file)


def test_an_entry_without_a_slash_is_a_folder_too(store, installation):
    put(store, S3Url(installation.bucket, "photos-private/a"))

    with changed(installation, allow=(f"{installation.bucket}/photos",)) as fenced, pytest.raises(AccessDenied):
        fenced.get(S3Url(installation.bucket, "photos-private/a"), max_bytes=9)


@pytest.mark.parametrize("key", ["in/../out/a", "in/./../out/a", "in/%2e%2e/out/a", "in//../../out/a"])
def test_dots_in_a_key_do_not_leave_the_allow_list(store, installation, key):
    """S3 keys are not paths, but a server that stores objects as files may resolve them as paths."""
    private = S3Url(installation.bucket, "out/a")
    put(store, private, b"private")

    with changed(installation, allow=(f"{installation.bucket}/in/",)) as fenced:
        with pytest.raises((ObjectMissing, ServiceError)):
            data, _ = fenced.get(S3Url(installation.bucket, key), max_bytes=99)
            pytest.fail(f"read {data!r}")
        with contextlib.suppress(ServiceError):
            put(fenced, S3Url(installation.bucket, key), b"overwritten")

    assert store.get(private, max_bytes=99)[0] == b"private"


# -- a server that closes connections early ---------------------------------------------------------------------

BODY = b"0123456789" * 1000
HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "e"\r\nConnection: close\r\n\r\n' % len(BODY)
CUT, WHOLE = HEAD + BODY[:5000], HEAD + BODY
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[S3Settings, list[bytes]]]:
    """An HTTP server with prepared responses, the last one for all further requests; yields the requests too."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    request = connection.recv(65536)
                    if not request:
                        return
                    asked.append(request.split(b"\r\n")[0])
                    connection.sendall(answers[min(len(asked), len(answers)) - 1])

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield (
                S3Settings(
                    endpoint_url=f"http://127.0.0.1:{port}",
                    access_key_id=SecretStr("a"),
                    secret_access_key=SecretStr("b"),
                    addressing_style="path",
                    attempts=2,
                ),
                asked,
            )
        finally:
            socket.create_connection(("127.0.0.1", port)).close()  # ends the server thread
            thread.join(10)


def test_a_truncated_body_is_fetched_again():
    with server(CUT, WHOLE) as (settings, asked), ObjectStore(settings) as store:
        data, info = store.get(S3Url("b", "k"), max_bytes=1 << 20)

    assert data == BODY
    assert (info.size, info.etag) == (len(BODY), "e")
    assert len(asked) == 2


def test_a_body_that_is_always_truncated_is_given_up():
    with server(CUT) as (settings, asked), ObjectStore(settings) as store, pytest.raises(StoreUnavailable):
        store.get(S3Url("b", "k"), max_bytes=1 << 20)

    assert len(asked) == 2


def test_a_request_to_a_busy_server_is_repeated():
    with server(BUSY, WHOLE) as (settings, asked), ObjectStore(settings) as store:
        assert store.get(S3Url("b", "k"), max_bytes=1 << 20)[0] == BODY

    assert len(asked) == 2


def test_requests_to_a_busy_server_are_repeated_up_to_the_setting():
    with server(BUSY) as (settings, asked), ObjectStore(settings) as store, pytest.raises(StoreUnavailable):
        store.get(S3Url("b", "k"), max_bytes=1 << 20)

    assert len(asked) == settings.attempts == 2


def test_an_interrupted_download_leaves_no_file(tmp_path):
    with server(CUT) as (settings, _), ObjectStore(settings) as store, pytest.raises(StoreUnavailable):
        store.download(S3Url("b", "k"), tmp_path / "file")

    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_keeps_the_existing_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    with server(CUT) as (settings, _), ObjectStore(settings) as store, pytest.raises(StoreUnavailable):
        store.download(S3Url("b", "k"), tmp_path / "file")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_closed_store_holds_no_connection(store, installation):
    import psutil

    port = int(installation.settings.s3.endpoint_url.rpartition(":")[2])

    def connections() -> int:
        established = psutil.Process().net_connections("tcp")
        return sum(c.raddr != () and c.raddr.port == port and c.status == "ESTABLISHED" for c in established)

    with ObjectStore(installation.settings.s3) as other:
        before = connections()
        other.reach()
        during = connections()

    assert during == before + 1
    assert connections() == before


@pytest.mark.parametrize("pieces", [0, 1, 7, 30], ids=lambda pieces: f"{pieces} pieces")
def test_an_object_written_piece_by_piece_is_whole(store, installation, pieces):
    url = S3Url(installation.bucket, "list")
    data = [bytes([number]) * 400_001 for number in range(pieces)]  # 30 of them are three parts of an upload

    with store.open_writer(url, content_type="text/plain") as writer:
        for piece in data:
            writer.write(piece)

    assert store.get(url, max_bytes=10**8)[0] == b"".join(data)


@pytest.mark.parametrize("pieces", [1, 30])
def test_an_object_whose_writer_fails_does_not_appear(store, installation, pieces):
    url = S3Url(installation.bucket, "list")

    with pytest.raises(ZeroDivisionError), store.open_writer(url, content_type="text/plain") as writer:
        for _ in range(pieces):
            writer.write(b"x" * 400_001)
        raise ZeroDivisionError

    assert list(store.list(S3Url(installation.bucket))) == []
    assert "Uploads" not in store._client.list_multipart_uploads(Bucket=installation.bucket)


def test_an_object_outside_the_allow_list_gets_no_writer(installation):
    config = installation.settings.s3.model_copy(update={"allow": ("other/",)})
    with ObjectStore(config) as store, pytest.raises(AccessDenied):
        store.open_writer(S3Url(installation.bucket, "list"), content_type="text/plain")
