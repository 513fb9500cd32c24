from __future__ import annotations

import os

import pytest

from producer import sources
from producer.submit import refuse_overlap
from worker.contract.errors import SettingsError, SourceError
from worker.contract.objects import ObjectInfo, S3Url


def listing(*keys):
    return iter([ObjectInfo(key, 1, "", {}) for key in keys])


def test_only_image_names_are_taken_and_the_rest_is_counted():
    selection = sources.Selection(
        listing("a.jpg", "b.JPEG", "c.txt", "d", "e/f.heic", ".jpg", "_maskmill/j/input/x.jpg", "g.jpg.bak")
    )

    assert [item.key for item in selection] == ["a.jpg", "b.JPEG", "e/f.heic"]
    assert selection.passed_over == 4


def test_local_files_are_listed_in_a_stable_order(tmp_path):
    for name in ("b.jpg", "a.jpg", "sub/c.jpg", "sub dir/ü #1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")

    items = list(sources.local_files(tmp_path))

    assert [item.key for item in items] == ["a.jpg", "b.jpg", "sub/c.jpg", "sub dir/ü #1.png"]
    assert {item.size for item in items} == {5}


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="neither an s3:// URL nor a folder"):
        list(sources.local_files(tmp_path / "nothing"))


def test_a_name_that_is_no_text_is_named(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1")

    with pytest.raises(SourceError, match="rename"):
        list(sources.local_files(tmp_path))


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


@pytest.mark.parametrize("text", ["bucket/key", "s3:/x", "s3://", "http://x/y", ""])
def test_what_is_no_s3_url_is_refused(text):
    with pytest.raises(SourceError, match="s3://bucket/prefix/"):
        S3Url.parse(text)
