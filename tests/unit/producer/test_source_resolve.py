from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from producer.plan import refuse_overlap
from producer.sources.bucket import S3Glob, S3Object, S3Prefix
from producer.sources.inventory import S3Inventory
from producer.sources.item import Item, Skip
from producer.sources.key_list import KeyList, StandardInput
from producer.sources.list_formats import ListFormat
from producer.sources.local import LocalFiles, LocalFolder, LocalGlob
from producer.sources.resolve import SourceSpec, resolve_source
from worker.contract.errors import DigestMismatch, ObjectMissing, SettingsError, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo


class Bucket:
    """A listing of one bucket, and a few objects that can be downloaded."""

    def __init__(self, *keys: str, objects: dict[str, bytes] | None = None) -> None:
        self.keys = sorted(keys)
        self.objects = objects or {}
        self.listed: list[str] = []

    def list(self, folder: S3Url, *, beginning: str = ""):
        self.listed.append(folder.key + beginning)
        for key in self.keys:
            if key.startswith(folder.key + beginning):
                yield ObjectInfo(key.removeprefix(folder.key), 1, "e", {}, 1.0)

    def download(self, place: S3Url, path: Path) -> None:
        if str(place) not in self.objects:
            raise ObjectMissing(f"{place} does not exist")
        path.write_bytes(self.objects[str(place)])


def resolved(*places, manifest=None, form=None, bucket=None):
    return resolve_source(SourceSpec(places, manifest, form), bucket or Bucket())


def keys(source):
    return [item.key for item in source.items(Counter())]


def keys_and_skips(source):
    skipped = Counter()
    return [item.key for item in source.items(skipped)], dict(skipped)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    return folder


@pytest.mark.parametrize(
    ("places", "manifest", "form", "kind"),
    [
        (("s3://b",), None, None, S3Prefix),
        (("s3://b/p",), None, None, S3Prefix),
        (("s3://b/x.jpg/",), None, None, S3Prefix),
        (("s3://photos.jpg",), None, None, S3Prefix),
        (("s3://b/x.jpg",), None, None, S3Object),
        (("s3://b/p/*.jpg",), None, None, S3Glob),
        (("s3://b/{x,y}/",), None, None, S3Glob),
        (("s3://b/p",), "keys.txt", None, KeyList),
        (("s3://b/p",), "-", None, KeyList),
        (("{tmp}",), "keys.csv.gz", None, KeyList),
        (("s3://b/p",), "s3://b/manifest.json", None, S3Inventory),
        (("s3://b/p",), "keys.json", ListFormat.JSONL, KeyList),
        (("{tmp}",), None, None, LocalFolder),
        (("{tmp}/*.jpg",), None, None, LocalGlob),
        (("{tmp}/a.jpg",), None, None, LocalFiles),
        (("{tmp}/a.jpg", "{tmp}"), None, None, LocalFiles),
        (("{tmp}/[x].jpg",), None, None, LocalFiles),
    ],
)
def test_the_argument_decides_the_kind_of_source(tmp_path, places, manifest, form, kind):
    write(tmp_path, "a.jpg", "[x].jpg")
    texts = [text.replace("{tmp}", str(tmp_path)) for text in places]

    source = resolved(*texts, manifest=manifest, form=form)

    assert type(source) is kind
    assert source.is_whole is (kind in (S3Prefix, LocalFolder))


@pytest.mark.parametrize("text", ["s3://b/p/", "s3://b/**/*.jpg"])
def test_a_bucket_is_listed_lazily(text):
    class Endless(Bucket):
        def list(self, folder, *, beginning=""):
            return (ObjectInfo(f"{number}.jpg", 1, "e", {}, 1.0) for number in itertools.count())

    items = resolved(text, bucket=Endless()).items(Counter())

    assert next(items) == Item("0.jpg", 1, "e", 1.0)


def test_local_files_are_listed_in_a_stable_order(tmp_path):
    write(tmp_path, "b.jpg", "a.jpg", "sub/c.jpg", "sub dir/ü #1.png")

    items = list(resolved(str(tmp_path)).items(Counter()))

    assert [item.key for item in items] == ["a.jpg", "b.jpg", "sub/c.jpg", "sub dir/ü #1.png"]
    assert {item.size for item in items} == {5}


def test_a_missing_folder_is_refused_with_a_suggestion(tmp_path):
    (tmp_path / "photos").mkdir()

    with pytest.raises(SourceError, match=r"neither an s3:// URL nor a folder.*did you mean .*/photos\?"):
        resolved(str(tmp_path / "photo"))


def test_a_file_name_that_is_not_text_is_reported(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1")

    with pytest.raises(SourceError, match="rename"):
        keys(resolved(str(tmp_path)))


@pytest.fixture
def linked(tmp_path):
    """A folder with links of all kinds, pipes and sockets beside two files; `outside` must stay outside."""
    folder = write(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    outside = write(tmp_path / "outside", "secret.jpg", "deep/x.jpg")
    (folder / "file.jpg").symlink_to(outside / "secret.jpg")
    (folder / "folder").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.jpg").symlink_to("sub/b.jpg")
    (folder / "same").symlink_to("sub")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (outside / "back").symlink_to(folder)
    (outside / "again").symlink_to(outside / "deep")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.jpg"))
    return folder


def test_links_out_of_a_folder_and_what_is_no_file_are_counted_not_followed(linked):
    found, skipped = keys_and_skips(resolved(str(linked)))

    assert found == ["a.jpg", "inside.jpg", "sub/b.jpg"]
    assert skipped == {Skip.OUTSIDE_LINK: 3, Skip.NOT_A_FILE: 4}
    assert keys_and_skips(resolved(f"{linked}/**/*.jpg"))[0] == found


def test_links_are_followed_on_request_and_without_end_in_a_loop(linked):
    source = resolve_source(SourceSpec(str(linked), follow_links=True), Bucket())

    assert keys(source) == [
        *("a.jpg", "file.jpg", "inside.jpg"),
        *("folder/secret.jpg", "folder/again/x.jpg", "folder/deep/x.jpg", "sub/b.jpg"),
    ]


def test_a_link_that_is_the_source_itself_is_followed(linked, tmp_path):
    (tmp_path / "link").symlink_to(linked)

    assert keys(resolved(str(tmp_path / "link"))) == ["a.jpg", "inside.jpg", "sub/b.jpg"]
    assert keys(resolved(str(linked / "file.jpg"))) == ["file.jpg"]
    assert keys(resolved(str(linked / "a.jpg"), str(linked / "folder"))) == [
        "a.jpg",
        "folder/secret.jpg",
        "folder/deep/x.jpg",
    ]


def test_a_list_of_local_files_does_not_lead_through_links(linked, tmp_path):
    names = ("a.jpg", "file.jpg", "folder/secret.jpg", "folder/gone.jpg", "same/b.jpg", "pipe.jpg", "nowhere.jpg")
    (tmp_path / "l.txt").write_text("\n".join(names))
    spec = SourceSpec(str(linked), str(tmp_path / "l.txt"))

    found, skipped = keys_and_skips(resolve_source(spec, Bucket()))
    assert found == ["a.jpg", "same/b.jpg"]
    assert skipped == {Skip.OUTSIDE_LINK: 2, Skip.NOT_A_FILE: 2, Skip.MISSING: 1}

    found, _ = keys_and_skips(resolve_source(dataclasses.replace(spec, follow_links=True), Bucket()))
    assert found == ["a.jpg", "file.jpg", "folder/secret.jpg", "same/b.jpg"]


def test_a_path_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(SourceError, match="File name too long"):
        resolved(f"{tmp_path}/{'x' * 300}")


def test_files_and_folders_are_relative_to_their_common_folder(tmp_path):
    write(tmp_path, "x/a/1.jpg", "x/b/2.jpg", "x/b/c/3.jpg")

    several = resolved(str(tmp_path / "x/a/1.jpg"), str(tmp_path / "x/b"))

    assert (several.root, keys(several)) == (tmp_path / "x", ["a/1.jpg", "b/2.jpg", "b/c/3.jpg"])
    assert keys(resolved(str(tmp_path / "x/a/1.jpg"))) == ["1.jpg"]


def test_a_local_glob(tmp_path):
    source = resolved(f"{write(tmp_path, 'p/a.jpg', 'p/b.png', 'p/d/c.jpg')}/p/**/*.jpg")

    assert source.root == tmp_path / "p"
    assert keys_and_skips(source) == (["a.jpg", "d/c.jpg"], {Skip.NOT_INCLUDED: 1})


def test_a_local_glob_without_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="neither an s3:// URL nor a folder"):
        resolved(f"{tmp_path}/none/*.jpg")


@pytest.mark.parametrize(
    ("text", "root", "listed", "found"),
    [
        ("s3://b/p/", "s3://b/p/", "p/", ["2024-1/x.jpg", "2024-2/x.png", "25/y.jpg"]),
        ("s3://b/p", "s3://b/p/", "p/", ["2024-1/x.jpg", "2024-2/x.png", "25/y.jpg"]),
        ("s3://b/p/**/*.jpg", "s3://b/p/", "p/", ["2024-1/x.jpg", "25/y.jpg"]),
        ("s3://b/p/2024-*/*", "s3://b/p/", "p/2024-", ["2024-1/x.jpg", "2024-2/x.png"]),
        ("s3://b/p/2024-1*/", "s3://b/p/", "p/2024-1", ["2024-1/x.jpg"]),
        ("s3://b/*.jpg", "s3://b/", "", ["top.jpg"]),
        ("s3://b/p/25/y.jpg", "s3://b/p/25/", "p/25/y.jpg", ["y.jpg"]),
        ("s3://b", "s3://b/", "", ["p/2024-1/x.jpg", "p/2024-2/x.png", "p/25/y.jpg", "top.jpg"]),
    ],
)
def test_s3_is_listed_from_the_longest_literal_prefix(text, root, listed, found):
    bucket = Bucket("p/2024-1/x.jpg", "p/2024-2/x.png", "p/25/y.jpg", "top.jpg")

    source = resolved(text, bucket=bucket)

    assert (str(source.root), keys(source), bucket.listed) == (root, found, [listed])


def test_keys_outside_a_glob_are_counted_but_not_siblings_of_an_object():
    bucket = Bucket("p/a.jpg", "p/a.jpg.bak", "p/b.png")

    assert keys_and_skips(resolved("s3://b/p/*.jpg", bucket=bucket)) == (["a.jpg"], {Skip.NOT_INCLUDED: 2})
    assert keys_and_skips(resolved("s3://b/p/a.jpg", bucket=bucket)) == (["a.jpg"], {})
    assert keys_and_skips(resolved("s3://b/p/c.jpg", bucket=bucket)) == ([], {})


def test_a_list_in_a_bucket_is_copied_first():
    bucket = Bucket(objects={"s3://b/lists/k.csv.gz": gzip.compress(b"key,size\na.jpg,7\n")})

    assert list(resolved("s3://b/p", manifest="s3://b/lists/k.csv.gz", bucket=bucket).items(Counter())) == [
        Item("a.jpg", 7)
    ]
    with pytest.raises(SourceError, match=r"s3://b/gone\.txt does not exist"):
        keys(resolved("s3://b/p", manifest="s3://b/gone.txt", bucket=bucket))


def test_a_list_is_relative_to_its_source_or_absolute_below_it(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\ns3://b/p/d/b.jpg\n")

    assert keys(resolved("s3://b/p", manifest=str(tmp_path / "l.txt"))) == ["a.jpg", "d/b.jpg"]


@pytest.mark.parametrize("line", ["s3://other/p/a.jpg", "s3://b/q/a.jpg", "https://x/a.jpg"])
def test_a_url_outside_the_source_is_named_with_its_line(tmp_path, line):
    (tmp_path / "l.txt").write_text(f"a.jpg\n{line}\n")

    with pytest.raises(SourceError, match=r"l\.txt, line 2: .*not under s3://b/p/"):
        keys(resolved("s3://b/p/", manifest=str(tmp_path / "l.txt")))


def test_a_list_of_local_files_stays_below_its_folder(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.jpg").write_bytes(b"123")
    (tmp_path / "secret.jpg").write_bytes(b"1")
    (tmp_path / "l.txt").write_text(f"a.jpg\n./a.jpg\n{tmp_path}/p/a.jpg\ngone.jpg\n")

    source = resolved(str(tmp_path / "p"), manifest=str(tmp_path / "l.txt"))

    assert keys_and_skips(source) == (["a.jpg"] * 3, {Skip.MISSING: 1})
    (tmp_path / "l.txt").write_text("../secret.jpg\n")
    with pytest.raises(SourceError, match=r"'\.\./secret\.jpg' is not below"):
        keys(resolved(str(tmp_path / "p"), manifest=str(tmp_path / "l.txt")))


def stdin(monkeypatch, text: str | bytes) -> None:
    body = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(body))))


def test_standard_input_may_hold_urls_json_or_paths(monkeypatch, tmp_path):
    stdin(monkeypatch, '{"key": "s3://b/p/a.jpg", "size": 7}\n"s3://b/b.jpg"\n')
    source = resolved("-")
    assert type(source) is StandardInput and not source.is_whole
    assert (str(source.root), [(item.key, item.size) for item in source.items(Counter())]) == (
        "s3://b/",
        [("p/a.jpg", 7), ("b.jpg", None)],
    )

    (tmp_path / "x.jpg").write_bytes(b"1")  # the working directory of a test
    stdin(monkeypatch, "./x.jpg\n")
    source = resolved("-")
    assert (source.root, keys(source)) == (tmp_path, ["x.jpg"])

    stdin(monkeypatch, "./gone.jpg\n./x.jpg\n")
    assert keys_and_skips(resolved("-")) == (["x.jpg"], {Skip.MISSING: 1})

    stdin(monkeypatch, "\n")
    with pytest.raises(SourceError, match="nothing on standard input"):
        resolved("-")


def test_truncated_standard_input_is_reported_as_damaged(monkeypatch):
    whole = gzip.compress(b"s3://b/a.jpg\n" * 100_000)

    stdin(monkeypatch, whole[:-12])
    source = resolved("-")
    with pytest.raises(SourceError, match="damaged"):
        keys(source)

    stdin(monkeypatch, whole[:12])
    with pytest.raises(SourceError, match="damaged"):
        resolved("-")


def inventory(rows: bytes, **changes: object) -> Bucket:
    data = gzip.compress(rows)
    file = {"key": "inv/0.csv.gz", "MD5checksum": hashlib.md5(data, usedforsecurity=False).hexdigest()}
    facts = {"sourceBucket": "b", "destinationBucket": "arn:aws:s3:::i", "files": [file]}
    facts |= {"fileFormat": "CSV", "fileSchema": "Bucket, Key, Size, ETag, IsLatest"} | changes
    return Bucket(objects={"s3://i/m.json": json.dumps(facts).encode(), "s3://i/inv/0.csv.gz": data})


def test_an_inventory_gives_the_current_objects_under_its_root():
    bucket = inventory(b"b,p/a+%C3%BC.jpg,7,e,true\nb,p/a.jpg,8,f,false\nb,q/b.jpg,9,g,true\nb,p/,0,h,true\n")

    source, skipped = resolved("s3://b/p", manifest="s3://i/m.json", bucket=bucket), Counter()

    assert (source.root, list(source.items(skipped))) == (S3Url("b", "p/"), [Item("a ü.jpg", 7, "e")])
    assert skipped == {Skip.NOT_CURRENT: 1, Skip.OUTSIDE_SOURCE: 1}


@pytest.mark.parametrize("destination", ["arn:aws-cn:s3:::i", "arn:aws-us-gov:s3:::i", "arn:aws:s3:::i", "i"])
def test_an_inventory_of_any_partition_is_read(destination):
    bucket = inventory(b"b,p/a.jpg,7,e,true\n", destinationBucket=destination)

    assert keys(resolved("s3://b/p", manifest="s3://i/m.json", bucket=bucket)) == ["a.jpg"]


@pytest.mark.parametrize(
    ("source", "changes", "error", "match"),
    [
        ("s3://b", {"fileFormat": "ORC"}, SourceError, "ORC is not supported"),
        ("s3://b", {"fileSchema": "Bucket, Size"}, SourceError, "no column Key"),
        ("s3://b", {"files": 7}, SourceError, "not the manifest.json"),
        ("s3://b", {"files": [{"key": 5}]}, SourceError, "not the manifest.json"),
        ("s3://b", {"files": [{"key": "x", "MD5checksum": 5}]}, SourceError, "not the manifest.json"),
        ("s3://b", {"fileSchema": 5}, SourceError, "not the manifest.json"),
        ("s3://b", {"fileSchema": None}, SourceError, "not the manifest.json"),
        ("s3://b", {"destinationBucket": 5}, SourceError, "not the manifest.json"),
        ("s3://b", {"sourceBucket": ["b"]}, SourceError, "not the manifest.json"),
        ("s3://other", {}, SourceError, "give s3://b/ as SOURCE"),
        ("s3://b", {"files": [{"key": "inv/0.csv.gz", "MD5checksum": "0" * 32}]}, DigestMismatch, "complete inventory"),
        ("s3://b", {"fileSchema": "Key"}, SourceError, "line 1: 5 fields, its schema has 1"),
    ],
)
def test_an_inventory_that_does_not_fit_is_refused(source, changes, error, match):
    bucket = inventory(b"b,a.jpg,7,e,true\n", **changes)

    with pytest.raises(error, match=match):
        keys(resolved(source, manifest="s3://i/m.json", bucket=bucket))


def test_an_inventory_that_is_nested_too_deeply_is_refused():
    bucket = Bucket(objects={"s3://i/m.json": b"[" * 100_000})

    with pytest.raises(SourceError, match=r"not the manifest\.json"):
        keys(resolved("s3://b", manifest="s3://i/m.json", bucket=bucket))


def test_an_inventory_has_no_local_files_and_needs_its_bucket(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="give s3://BUCKET/ as SOURCE, not a folder"):
        resolved(str(tmp_path), manifest="m.json")
    with pytest.raises(SourceError, match="give s3://BUCKET/ as SOURCE, with --manifest -"):
        resolved("-", form=ListFormat.INVENTORY)


@pytest.mark.parametrize(
    ("places", "manifest", "match"),
    [
        ((), None, "no source"),
        (("s3://b/a/", "s3://b/c/"), None, "--manifest"),
        (("-", "x"), None, "--manifest"),
        (("-",), "l.txt", "--manifest -"),
        (("s3://b/*.jpg",), "l.txt", "not a glob"),
        (("s3://b*/x/",), None, "name of a bucket"),
        (("s3://b/",), "l.parquet", "export the keys"),
        (("s3://b/",), "l.xyz", "--manifest-format"),
    ],
)
def test_an_invalid_source_is_refused_with_a_remedy(places, manifest, match):
    with pytest.raises(SourceError, match=match):
        keys(resolved(*places, manifest=manifest))


@pytest.mark.parametrize(
    ("source", "dest"),
    [
        ("s3://b/in/", "s3://b/in/"),
        ("s3://b/in/", "s3://b/in/out/"),
        ("s3://b/in/x/", "s3://b/in/"),
        ("s3://b", "s3://b/o/"),
    ],
)
def test_overlapping_source_and_destination_are_refused(source, dest):
    with pytest.raises(SettingsError, match="overlap"):
        refuse_overlap(S3Url.folder(source), S3Url.folder(dest))


@pytest.mark.parametrize(("source", "dest"), [("s3://b/in/", "s3://b/in-masks/"), ("s3://a", "s3://b")])
def test_separate_source_and_destination_are_accepted(source, dest):
    refuse_overlap(S3Url.folder(source), S3Url.folder(dest))
