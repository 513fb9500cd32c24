"""The same calls of the S3 client against several servers, which differ where the protocol leaves room.

`test_s3.py` tests the client in depth against the embedded server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import botocore.response
import pytest
from botocore.exceptions import IncompleteReadError

from support.s3_servers import NAMES, s3_server
from worker.contract.errors import ObjectMissing, ServiceError, TooLarge
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

PART_BYTES = 8 << 20  # boto3 uploads larger files in parts
UNUSUAL_KEYS = ["a b.jpg", "#1.jpg", "100%.jpg", "%41.jpg", "a+b.jpg", "ü/日本.jpg", "q?x=1&y=2.jpg", "quote'\".jpg"]
METADATA = {"maskmill-source-etag": "abc-1", "maskmill-model": "d" * 64}


@pytest.fixture(scope="module", params=NAMES)
def client(
    request: pytest.FixtureRequest, standalone: Standalone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("server")
    with s3_server(request.param, standalone, folder) as settings, ObjectStore(settings) as store:
        yield store


@pytest.fixture
def bucket(client: ObjectStore) -> S3Url:
    """A new bucket."""
    name = f"t{secrets.token_hex(4)}"
    client.ensure_bucket(name)
    return S3Url(name)


def put(client: ObjectStore, url: S3Url, data: bytes = b"x", **metadata: str) -> None:
    client.put(url, data, content_type="image/jpeg", metadata=metadata)


def test_a_bucket_is_created_once_and_found(client, bucket):
    client.ensure_bucket(bucket.bucket)

    client.check(bucket)
    client.reach()
    client.probe()
    assert list(client.list(bucket)) == []


def test_an_object_comes_back_with_its_metadata_under_the_same_names(client, bucket):
    put(client, bucket / "in/a.jpg", b"content", **METADATA)

    data, got = client.get(bucket / "in/a.jpg", max_bytes=7)
    seen = client.head(bucket / "in/a.jpg")
    [listed] = client.list(bucket / "in/")

    assert data == b"content"
    assert dict(got.metadata) == dict(seen.metadata) == METADATA
    assert got.size == seen.size == listed.size == 7
    assert got.etag == seen.etag == listed.etag == client.content_etag(bucket / "in/a.jpg") != ""
    assert seen.modified is not None and listed.modified is not None
    assert abs(seen.modified - listed.modified) < 2  # a header has whole seconds


def test_an_object_is_replaced_whole(client, bucket):
    put(client, bucket / "a", b"longer than the next", old="1")
    first = client.head(bucket / "a").etag
    put(client, bucket / "a", b"new")

    data, info = client.get(bucket / "a", max_bytes=100)

    assert (data, dict(info.metadata)) == (b"new", {})
    assert info.etag != first


def test_an_empty_object_and_one_beyond_the_limit(client, bucket):
    put(client, bucket / "empty", b"")
    put(client, bucket / "big", bytes(1001))

    assert client.get(bucket / "empty", max_bytes=10)[0] == b""
    with pytest.raises(TooLarge, match="1001 bytes, the limit is 1000"):
        client.get(bucket / "big", max_bytes=1000)


def test_a_listing_comes_page_by_page_in_key_order(client, bucket):
    keys = [f"{index:03d}.jpg" for index in range(25)]
    for key in reversed(keys):
        put(client, bucket / f"many/{key}")
    put(client, bucket / "many2/a.jpg")
    events, pages = client._client.meta.events, []
    limit, count = lambda params, **_: params | {"MaxKeys": 10}, lambda **_: pages.append(1)
    events.register("provide-client-params.s3.ListObjectsV2", limit)
    events.register("after-call.s3.ListObjectsV2", count)
    try:
        found = [item.key for item in client.list(bucket / "many/")]
    finally:
        events.unregister("provide-client-params.s3.ListObjectsV2", limit)
        events.unregister("after-call.s3.ListObjectsV2", count)

    assert found == keys
    assert len(pages) == 3


def test_a_listing_begins_where_it_is_told(client, bucket):
    for key in ("in/a/1.jpg", "in/a/2.jpg", "in/a/3.jpg", "in/b/1.jpg", "out/1.jpg"):
        put(client, bucket / key)

    assert [item.key for item in client.list(bucket / "in/", beginning="a/")] == ["a/1.jpg", "a/2.jpg", "a/3.jpg"]
    assert [item.key for item in client.list(bucket / "in/", after="a/2.jpg")] == ["a/3.jpg", "b/1.jpg"]
    assert list(client.list(bucket / "none/")) == []


def test_a_download_that_breaks_off_is_continued_by_a_range(client, bucket, tmp_path, monkeypatch):
    content = bytes(range(256)) * (12 << 10)  # 3 MiB
    put(client, bucket / "a", content)
    whole, received = botocore.response.StreamingBody.iter_chunks, []

    def broken(body, size):
        for block in whole(body, size):
            yield block
            if len(received) == 1:
                raise IncompleteReadError(actual_bytes=len(block), expected_bytes=len(content))

    monkeypatch.setattr(botocore.response.StreamingBody, "iter_chunks", broken)
    client.download(bucket / "a", tmp_path / "file", received.append)

    assert (tmp_path / "file").read_bytes() == content
    assert sum(received) == len(content) and min(received) > 0  # nothing was transferred twice


def test_a_large_file_is_uploaded_in_parts_with_its_metadata(client, bucket, tmp_path):
    content = bytes(range(256)) * (PART_BYTES // 256) + b"the second part"
    (tmp_path / "up").write_bytes(content)

    client.upload(tmp_path / "up", bucket / "d/big", metadata=METADATA)
    client.download(bucket / "d/big", tmp_path / "down")

    assert (tmp_path / "down").read_bytes() == content
    assert dict(client.head(bucket / "d/big").metadata) == METADATA


def test_unusual_keys_survive_every_call(client, bucket):
    for key in UNUSUAL_KEYS:
        put(client, bucket / f"in/{key}", key.encode())

    listed = [item.key for item in client.list(bucket / "in/")]

    assert sorted(listed) == sorted(UNUSUAL_KEYS)
    for key in listed:
        assert client.get(bucket / f"in/{key}", max_bytes=100)[0] == key.encode()
        assert client.head(bucket / f"in/{key}").size == len(key.encode())
        client.delete(bucket / f"in/{key}")
    assert list(client.list(bucket / "in/")) == []


def test_a_deleted_object_is_gone_and_may_be_deleted_again(client, bucket):
    put(client, bucket / "d/a")
    put(client, bucket / "d/b")

    client.delete(bucket / "d/a")
    client.delete(bucket / "d/a")

    assert [item.key for item in client.list(bucket / "d/")] == ["b"]


def test_a_missing_object_and_a_missing_bucket_are_told_apart(client, bucket, tmp_path):
    put(client, bucket / "d/a")
    gone = S3Url("there-is-no-such-bucket")

    reads = [lambda url: client.get(url, max_bytes=1), lambda url: client.download(url, tmp_path / "file")]
    for call in (*reads, client.head):
        for key in ("gone", "d/gone", "d"):
            with pytest.raises(ObjectMissing, match=f"s3://{bucket.bucket}/{key} does not exist"):
                call(bucket / key)
    # HEAD is left out: its answers have no body, which would say what is missing.
    others = [lambda url: list(client.list(gone)), lambda url: client.check(gone), lambda url: put(client, url)]
    for call in (*reads, *others):
        with pytest.raises(ServiceError, match="bucket 'there-is-no-such-bucket' does not exist"):
            call(gone / "a")


def test_the_questions_of_a_worker_in_trouble_are_answered(client, bucket):
    """Does S3 fail for one object or for all, and may this process write?"""
    put(client, bucket / "in/a.jpg")
    put(client, bucket / "in/b.jpg")

    assert client.reads_others(bucket / "in/a.jpg")
    assert client.writes(bucket / "out/probe")
    assert not client.writes(S3Url("there-is-no-such-bucket") / "probe")
