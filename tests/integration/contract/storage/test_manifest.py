from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc

import pytest

from support.fakes import FakeStore
from worker.contract.errors import ObjectMissing
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo

KEYS = ["a b.jpg", "#1.jpg", "100%.jpg", "a+b.jpg", "ü/日本.jpg", 'quote".jpg', "back\\slash.jpg", "line\nfeed\r.jpg"]
KEYS += ["unit\u2028separator\x85.jpg", "tab\t.jpg", "😀.jpg", "a//b.jpg"]


def write(store, dest: S3Url, items) -> manifest.Writer:
    writer = manifest.Writer(store, dest, "job")
    for item in items:
        writer.add(item)
    writer.close()
    return writer


def numbered(count: int):
    return (ObjectInfo(f"{index}.jpg", index, f"e{index}", {}) for index in range(count))


def test_what_is_written_is_read_in_order(store, installation):
    dest = S3Url(installation.bucket, "masks/")

    writer = write(store, dest, (ObjectInfo(key, index, f"e{index}", {}) for index, key in enumerate(KEYS)))
    entries = list(manifest.read(store, dest, "job", len(KEYS)))

    assert [entry.key for entry in entries] == KEYS
    assert [(entry.size, entry.etag) for entry in entries] == [(i, f"e{i}") for i in range(len(KEYS))]
    assert (writer.images, writer.bytes) == (len(KEYS), sum(range(len(KEYS))))
    assert [item.key for item in store.list(S3Url(installation.bucket))] == [
        "masks/_maskmill/job/manifest/part-00000.jsonl.gz"
    ]


@pytest.mark.parametrize(("images", "parts"), [(0, 0), (1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (31, 4)])
def test_all_parts_but_the_last_are_full(monkeypatch, images, parts):
    monkeypatch.setattr(manifest, "PART_IMAGES", 10)
    store, dest = FakeStore(), S3Url("b", "masks/")

    write(store, dest, numbered(images))

    folder = "s3://b/masks/_maskmill/job/manifest/"
    assert sorted(store.objects) == [f"{folder}part-{number:05d}.jsonl.gz" for number in range(parts)]
    sizes = [len(gzip.decompress(store.objects[url]).splitlines()) for url in sorted(store.objects)]
    assert sum(sizes) == images
    assert all(size == 10 for size in sizes[:-1])
    assert [entry.key for entry in manifest.read(store, dest, "job", images)] == [f"{i}.jpg" for i in range(images)]


def test_a_part_is_written_as_soon_as_it_is_full(monkeypatch):
    monkeypatch.setattr(manifest, "PART_IMAGES", 10)
    store = FakeStore()
    writer = manifest.Writer(store, S3Url("b"), "job")

    written = []
    for item in numbered(20):
        writer.add(item)
        written.append(len(store.objects))

    assert written == [0] * 9 + [1] * 10 + [2]


def test_reading_holds_one_part_at_a_time(monkeypatch):
    monkeypatch.setattr(manifest, "PART_IMAGES", 10)
    store, dest = FakeStore(), S3Url("b")
    write(store, dest, numbered(30))

    list(itertools.islice(manifest.read(store, dest, "job", 30), 10))

    assert len(store.got) == 1


def test_memory_does_not_grow_with_the_job():
    """The store discards its objects, so the memory measured is that of the writer."""

    class Sink(FakeStore):
        def put(self, place, data, **_):
            pass

    def peak(images: int) -> int:
        tracemalloc.start()
        try:
            write(Sink(), S3Url("b"), numbered(images))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(3 * manifest.PART_IMAGES) < 1.2 * peak(manifest.PART_IMAGES)


def test_the_same_listing_gives_the_same_bytes():
    first, second = FakeStore(), FakeStore()

    for store in (first, second):
        write(store, S3Url("b"), numbered(100))

    assert first.objects == second.objects


def test_a_missing_part_is_named():
    store, dest = FakeStore(), S3Url("b")

    with pytest.raises(ObjectMissing, match="_maskmill/job/manifest/part-00000"):
        list(manifest.read(store, dest, "job", 1))


def test_fields_of_a_later_version_are_ignored():
    line = json.dumps({"key": "a", "size": 1, "etag": "e", "version_id": "v"}).encode()
    store = FakeStore({"s3://b/_maskmill/job/manifest/part-00000.jsonl.gz": gzip.compress(line)})

    assert [entry.key for entry in manifest.read(store, S3Url("b"), "job", 1)] == ["a"]
