"""List prefixes, key lists and inventories with a real S3 server; nothing is submitted."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter

import pytest

from producer.plan import make_plan
from producer.sources.filters import Filters
from producer.sources.item import Skip
from producer.sources.resolve import SourceSpec
from worker.contract.errors import DigestMismatch, OutputCollision, SettingsError, SourceError
from worker.contract.messages import JobOptions
from worker.contract.s3url import S3Url

KEYS = ["a.jpg", "d/b.png", "d/e/c 1.jpg", "d/e/ü+%.jpg", "notes.txt"]


@pytest.fixture
def put(store, installation):
    def put(key: str, body: bytes = b"12345") -> str:
        store.put(S3Url(installation.bucket, key), body, content_type="application/octet-stream")
        return f"s3://{installation.bucket}/{key}"

    return put


@pytest.fixture
def planned(store, installation):
    """Return the keys, the skips and the plan of a source."""

    def planned(*places, dest="out/", **facts):
        spec = SourceSpec(tuple(text.format(bucket=installation.bucket) for text in places), **facts)
        target = S3Url(installation.bucket, dest)
        with make_plan(spec, target, lambda root: JobOptions(source=str(root), dest=str(target)), store) as plan:
            return [item.key for item in plan.spool], dict(plan.skipped), plan

    return planned


@pytest.fixture
def tree(put):
    for key in KEYS:
        put(f"in/{key}")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("s3://{bucket}/in", ("in/", KEYS[:4], {Skip.NOT_AN_IMAGE: 1})),
        ("s3://{bucket}/in/**/*.jpg", ("in/", ["a.jpg", *KEYS[2:4]], {Skip.NOT_INCLUDED: 2})),
        ("s3://{bucket}/in/d/*", ("in/d/", ["b.png"], {Skip.NOT_INCLUDED: 2})),
        ("s3://{bucket}/i*/d/e/*", ("", ["in/d/e/c 1.jpg", "in/d/e/ü+%.jpg"], {Skip.NOT_INCLUDED: 3})),
        ("s3://{bucket}/in/d/b.png", ("in/d/", ["b.png"], {})),
    ],
)
def test_prefixes_globs_and_objects(tree, planned, installation, source, expected):
    root, keys, skipped = expected

    found, left_out, plan = planned(source)

    assert (found, left_out) == (keys, skipped)
    assert plan.options.source == S3Url(installation.bucket, root)
    assert (plan.images, plan.bytes, plan.unknown_sizes) == (len(keys), 5 * len(keys), 0)


def test_filters_on_size_and_time(tree, put, planned):
    put("in/large.jpg", b"x" * 100)

    assert planned("s3://{bucket}/in/", filters=Filters(min_size=50))[0] == ["large.jpg"]
    assert planned("s3://{bucket}/in/", filters=Filters(max_size=50, exclude=("d/**",)))[0] == ["a.jpg"]
    assert planned("s3://{bucket}/in/", filters=Filters(newer_than=4e9))[0] == []


LISTS = {
    "keys.txt": b"a.jpg\nd/e/c 1.jpg\n",
    "keys.csv.gz": gzip.compress(b"key,size,etag\na.jpg,5,e\nd/e/c 1.jpg,5,e\n"),
    "keys.jsonl": b'"a.jpg"\n{"key": "d/e/c 1.jpg", "size": 5}\n',
}


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("name", LISTS)
def test_key_lists(put, planned, tmp_path, name, where):
    (tmp_path / name).write_bytes(LISTS[name])
    manifest = put(f"lists/{name}", LISTS[name]) if where == "s3" else str(tmp_path / name)

    keys, skipped, plan = planned("s3://{bucket}/in/", manifest=manifest)

    assert (keys, skipped) == (["a.jpg", "d/e/c 1.jpg"], {})
    assert plan.unknown_sizes == {"keys.txt": 2, "keys.jsonl": 1}.get(name, 0)


def test_a_missing_list_is_named(tree, planned, installation):
    with pytest.raises(SourceError, match=r"lists/gone\.txt does not exist"):
        planned("s3://{bucket}/in/", manifest=f"s3://{installation.bucket}/lists/gone.txt")


def test_head_requests_complete_a_list(tree, planned, tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\ngone.jpg\nd/b.png\na.jpg\n")

    keys, skipped, plan = planned(
        "s3://{bucket}/in/", manifest=str(tmp_path / "l.txt"), head=True, filters=Filters(min_size=1)
    )

    assert (keys, skipped) == (["a.jpg", "d/b.png"], {Skip.MISSING: 1, Skip.DUPLICATE: 1})
    assert (plan.images, plan.bytes, plan.unknown_sizes) == (2, 10, 0)


def test_collisions_far_apart_in_a_list_are_found(planned, tmp_path):
    names = [f"{number}.jpg" for number in range(5000)]
    (tmp_path / "l.txt").write_text("\n".join(["x.jpg", *names, "x.png"]))

    _, _, plan = planned("s3://{bucket}/in/", manifest=str(tmp_path / "l.txt"))

    assert plan.collisions == 1
    with pytest.raises(OutputCollision, match=r"'x\.jpg' and 'x\.png'"):
        plan.check()


def test_no_input_may_lie_under_the_destination(tree, planned, tmp_path):
    (tmp_path / "l.txt").write_text("in/a.jpg\nin/d/b.png\n")

    with pytest.raises(SettingsError, match=r"in/d/b\.png lies under the destination"):
        planned("s3://{bucket}/", manifest=str(tmp_path / "l.txt"), dest="in/d/")
    keys, _, _ = planned(
        "s3://{bucket}/", manifest=str(tmp_path / "l.txt"), dest="in/d/", filters=Filters(exclude=("in/d/**",))
    )
    assert keys == ["in/a.jpg"]


@pytest.fixture
def inventory(put, installation):
    """Write an S3 Inventory as Amazon S3 does, with one data file for each list of rows."""

    def inventory(rows, *, form="CSV", schema="Bucket, Key, Size, LastModifiedDate, ETag", bucket=None, md5=None):
        files = []
        for number, lines in enumerate(rows):
            body = gzip.compress("".join(f"{line}\n" for line in lines).encode())
            put(f"inv/data/{number}.csv.gz", body)
            digest = md5 or hashlib.md5(body, usedforsecurity=False).hexdigest()
            files.append({"key": f"inv/data/{number}.csv.gz", "size": len(body), "MD5checksum": digest})
        facts = {
            "sourceBucket": bucket or installation.bucket,
            "destinationBucket": f"arn:aws:s3:::{installation.bucket}",
        }
        facts |= {"version": "2016-11-30", "fileFormat": form, "fileSchema": schema, "files": files}
        return put("inv/2026-01-31T01-00Z/manifest.json", json.dumps(facts).encode())

    return inventory


def row(installation, key, *more):
    return ",".join(f'"{field}"' for field in (installation.bucket, key, "7", "2026-01-31T00:00:00.000Z", "e", *more))


def test_an_inventory(installation, planned, inventory):
    manifest = inventory(
        [
            [
                row(installation, "in/d/a+%C3%BC%2B1.jpg"),
                row(installation, "other/x.jpg"),
                row(installation, "in/notes.txt"),
            ],
            [row(installation, "in/b.jpg")],
        ]
    )

    keys, skipped, plan = planned(
        "s3://{bucket}/in/", manifest=manifest, filters=Filters(min_size=7, newer_than=1769817600.0)
    )

    assert (keys, plan.bytes) == (["d/a ü+1.jpg", "b.jpg"], 14)
    assert skipped == {Skip.OUTSIDE_SOURCE: 1, Skip.NOT_AN_IMAGE: 1}


def test_old_versions_in_an_inventory_are_skipped(installation, planned, inventory):
    manifest = inventory(
        [
            [
                row(installation, "a.jpg", "false", "false"),
                row(installation, "a.jpg", "true", "false"),
                row(installation, "b.jpg", "true", "true"),
            ]
        ],
        schema="Bucket, Key, Size, LastModifiedDate, ETag, IsLatest, IsDeleteMarker",
    )

    assert planned("s3://{bucket}/", manifest=manifest)[:2] == (["a.jpg"], {Skip.NOT_CURRENT: 2})


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"form": "Parquet"}, (SourceError, "Parquet is not supported; configure S3 to write it as CSV")),
        ({"schema": "Bucket, Size"}, (SourceError, "no column Key")),
        ({"bucket": "another"}, (SourceError, "give s3://another/ as SOURCE")),
        ({"md5": "0" * 32}, (DigestMismatch, "not the file that its manifest.json describes")),
    ],
)
def test_an_unusable_inventory_is_refused(installation, planned, inventory, facts, expected):
    error, match = expected

    with pytest.raises(error, match=match):
        planned("s3://{bucket}/", manifest=inventory([[row(installation, "a.jpg")]], **facts))


def test_other_json_is_not_an_inventory(put, planned):
    with pytest.raises(SourceError, match="--manifest-format jsonl"):
        planned("s3://{bucket}/", manifest=put("x.json", b'{"key": "a.jpg"}'))


def test_a_plan_changes_nothing(tree, store, installation, planned, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.jpg").write_bytes(b"x")
    before = [item.key for item in store.list(S3Url(installation.bucket))]

    planned("s3://{bucket}/in/")
    planned(str(tmp_path / "p"))

    assert [item.key for item in store.list(S3Url(installation.bucket))] == before
    assert Counter(before) == Counter(f"in/{key}" for key in KEYS)
