from __future__ import annotations

import io
import os
import sys

import pytest

from producer.plan import refuse_overlap
from producer.sources.item import Skip
from producer.sources.resolve import SourceSpec, open_source
from worker.contract.errors import SettingsError, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo


class Bucket:
    """A listing of one bucket."""

    def __init__(self, *keys: str) -> None:
        self.keys = sorted(keys)
        self.listed: list[str] = []

    def list(self, folder: S3Url, *, beginning: str = ""):
        self.listed.append(folder.key + beginning)
        for key in self.keys:
            if key.startswith(folder.key + beginning):
                yield ObjectInfo(key.removeprefix(folder.key), 1, "e", {}, 1.0)


def opened(*places, manifest=None, form=None, bucket=None):
    return open_source(SourceSpec(places, manifest, form), bucket or Bucket())


def keys(source):
    return [item.key for item in source.items]


def test_local_files_are_listed_in_a_stable_order(tmp_path):
    for name in ("b.jpg", "a.jpg", "sub/c.jpg", "sub dir/ü #1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")

    items = list(opened(str(tmp_path)).items)

    assert [item.key for item in items] == ["a.jpg", "b.jpg", "sub/c.jpg", "sub dir/ü #1.png"]
    assert {item.size for item in items} == {5}


def test_what_is_no_folder_is_refused_and_the_name_beside_it_suggested(tmp_path):
    (tmp_path / "photos").mkdir()

    with pytest.raises(SourceError, match=r"neither an s3:// URL nor a folder.*did you mean .*/photos\?"):
        opened(str(tmp_path / "photo"))


def test_a_name_that_is_no_text_is_named(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1")

    with pytest.raises(SourceError, match="rename"):
        keys(opened(str(tmp_path)))


def test_files_and_folders_are_relative_to_what_they_share(tmp_path):
    for name in ("x/a/1.jpg", "x/b/2.jpg", "x/b/c/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")

    several = opened(str(tmp_path / "x/a/1.jpg"), str(tmp_path / "x/b"))

    assert (several.root, keys(several)) == (tmp_path / "x", ["a/1.jpg", "b/2.jpg", "b/c/3.jpg"])
    assert keys(opened(str(tmp_path / "x/a/1.jpg"))) == ["1.jpg"]


def test_a_local_glob(tmp_path):
    for name in ("p/a.jpg", "p/b.png", "p/d/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")

    source = opened(f"{tmp_path}/p/**/*.jpg")

    assert (source.root, keys(source)) == (tmp_path / "p", ["a.jpg", "d/c.jpg"])
    assert source.skipped == {Skip.NOT_INCLUDED: 1}


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

    source = opened(text, bucket=bucket)

    assert (str(source.root), keys(source), bucket.listed) == (root, found, [listed])


def test_a_list_is_relative_to_its_source_or_absolute_below_it(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\ns3://b/p/d/b.jpg\n")

    assert keys(opened("s3://b/p", manifest=str(tmp_path / "l.txt"))) == ["a.jpg", "d/b.jpg"]


@pytest.mark.parametrize("line", ["s3://other/p/a.jpg", "s3://b/q/a.jpg", "https://x/a.jpg"])
def test_a_url_that_is_not_under_the_source_is_named_with_its_line(tmp_path, line):
    (tmp_path / "l.txt").write_text(f"a.jpg\n{line}\n")

    with pytest.raises(SourceError, match=r"l\.txt, line 2: .*not under s3://b/p/"):
        keys(opened("s3://b/p/", manifest=str(tmp_path / "l.txt")))


def test_a_list_of_local_files_stays_below_its_folder(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.jpg").write_bytes(b"123")
    (tmp_path / "secret.jpg").write_bytes(b"1")
    (tmp_path / "l.txt").write_text(f"a.jpg\n./a.jpg\n{tmp_path}/p/a.jpg\ngone.jpg\n")

    source = opened(str(tmp_path / "p"), manifest=str(tmp_path / "l.txt"))

    assert (keys(source), source.skipped) == (["a.jpg"] * 3, {Skip.MISSING: 1})
    (tmp_path / "l.txt").write_text("../secret.jpg\n")
    with pytest.raises(SourceError, match=r"'\.\./secret\.jpg' is not below"):
        keys(opened(str(tmp_path / "p"), manifest=str(tmp_path / "l.txt")))


def stdin(monkeypatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode()))))


def test_standard_input_tells_what_it_is_about(monkeypatch, tmp_path):
    stdin(monkeypatch, '{"key": "s3://b/p/a.jpg", "size": 7}\n"s3://b/b.jpg"\n')
    source = opened("-")
    assert (str(source.root), [(item.key, item.size) for item in source.items]) == (
        "s3://b/",
        [("p/a.jpg", 7), ("b.jpg", None)],
    )

    (tmp_path / "x.jpg").write_bytes(b"1")  # the working directory of a test
    stdin(monkeypatch, "./x.jpg\n")
    source = opened("-")
    assert (source.root, keys(source)) == (tmp_path, ["x.jpg"])

    stdin(monkeypatch, "\n")
    with pytest.raises(SourceError, match="nothing on standard input"):
        opened("-")


@pytest.mark.parametrize(
    ("places", "manifest", "match"),
    [
        ((), None, "no source"),
        (("s3://b/a/", "s3://b/c/"), None, "--manifest"),
        (("-", "x"), None, "--manifest"),
        (("-",), "l.txt", "--manifest -"),
        (("s3://b/*.jpg",), "l.txt", "not a glob"),
        (("s3://b*/x/",), None, "bucket's name"),
        (("s3://b/",), "l.parquet", "export the keys"),
        (("s3://b/",), "l.xyz", "--manifest-format"),
    ],
)
def test_what_cannot_be_a_source_is_refused_with_a_remedy(places, manifest, match):
    with pytest.raises(SourceError, match=match):
        keys(opened(*places, manifest=manifest))


@pytest.mark.parametrize(
    ("source", "dest"),
    [
        ("s3://b/in/", "s3://b/in/"),
        ("s3://b/in/", "s3://b/in/out/"),
        ("s3://b/in/x/", "s3://b/in/"),
        ("s3://b", "s3://b/o/"),
    ],
)
def test_overlapping_places_are_refused(source, dest):
    with pytest.raises(SettingsError, match="overlap"):
        refuse_overlap(S3Url.folder(source), S3Url.folder(dest))


@pytest.mark.parametrize(("source", "dest"), [("s3://b/in/", "s3://b/in-masks/"), ("s3://a", "s3://b")])
def test_separate_places_are_fine(source, dest):
    refuse_overlap(S3Url.folder(source), S3Url.folder(dest))
