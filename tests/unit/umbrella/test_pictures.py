"""Source and destination of `maskmill cut`: no output can replace a picture, and two pictures never share an output."""

from __future__ import annotations

import os

import pytest

from producer.sources.item import Skip
from worker.contract.errors import OutputCollision, SettingsError, SourceError
from worker.contract.outputs import OutputKind, OutputOptions
from worker.umbrella.pictures import Pictures, describe_skipped

CUTOUT = OutputOptions(outputs=(OutputKind.CUTOUT,))


@pytest.fixture
def photos(tmp_path):
    for name in ("a.jpg", "sub/b.png", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def keys(pictures: Pictures) -> list[str]:
    return [item.key for item in pictures.scan()[0]]


def test_a_folder_gives_its_pictures_and_counts_the_rest(photos, tmp_path):
    found, skipped = Pictures(photos, tmp_path / "out", CUTOUT).scan()

    assert [item.key for item in found] == ["a.jpg", "sub/b.png"] and skipped == {Skip.NOT_AN_IMAGE: 1}


def test_links_out_of_the_folder_are_counted_and_followed_on_request(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.jpg").write_bytes(b"x")
    (photos / "link.jpg").symlink_to(tmp_path / "elsewhere" / "c.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "made.png").write_bytes(b"x")
    (photos / "outputs").symlink_to(tmp_path / "out")
    os.mkfifo(photos / "pipe.jpg")

    found, skipped = Pictures(photos, tmp_path / "out", CUTOUT).scan()
    assert [item.key for item in found] == ["a.jpg", "sub/b.png"]
    assert describe_skipped(skipped) == (
        "1 other file, 2 links that lead out of the folder (--follow-links takes them), "
        "1 pipes, devices or broken links left out"
    )

    following = Pictures(photos, tmp_path / "out", CUTOUT, follow_links=True)
    assert keys(following) == ["a.jpg", "link.jpg", "sub/b.png"]
    single = Pictures(photos / "link.jpg", tmp_path / "out", CUTOUT)
    assert keys(single) == ["link.jpg"] and single.follow_links


def test_one_picture_is_a_source(photos, tmp_path):
    assert keys(Pictures(photos / "sub" / "b.png", tmp_path / "out", CUTOUT)) == ["b.png"]


def test_a_destination_inside_the_source_is_not_part_of_it(photos):
    (photos / "out").mkdir()
    (photos / "out" / "a.png").write_bytes(b"x")
    (photos / "output.jpg").write_bytes(b"x")

    assert keys(Pictures(photos, photos / "out", CUTOUT)) == ["a.jpg", "output.jpg", "sub/b.png"]


def test_the_same_holds_through_a_symbolic_link(photos, tmp_path):
    (photos / "out").mkdir()
    (photos / "out" / "a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(photos / "out")

    assert keys(Pictures(photos, tmp_path / "link", CUTOUT)) == ["a.jpg", "sub/b.png"]


@pytest.mark.parametrize("dest", ["photos", "photos/../photos", ".", "link"])
def test_a_destination_that_contains_the_pictures_is_refused(photos, tmp_path, monkeypatch, dest):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(photos)

    with pytest.raises(SettingsError, match=r"could replace one: choose a folder of its own, such as .*photos-cutouts"):
        Pictures(photos, tmp_path / dest, CUTOUT)


def test_the_folder_of_a_single_picture_is_refused_but_not_its_parent(photos, tmp_path):
    with pytest.raises(SettingsError):
        Pictures(photos / "a.jpg", photos, CUTOUT)

    assert keys(Pictures(photos / "a.jpg", tmp_path, CUTOUT)) == ["a.jpg"]


def test_a_misspelt_source_gets_a_suggestion(photos, tmp_path):
    with pytest.raises(SourceError, match=r"did you mean .*photos"):
        Pictures(tmp_path / "fotos", tmp_path / "out", CUTOUT)


def test_a_file_as_destination_is_refused(photos, tmp_path):
    (tmp_path / "out").write_bytes(b"")

    with pytest.raises(SettingsError, match=r"is a file"):
        Pictures(photos, tmp_path / "out", CUTOUT)


def test_two_pictures_with_one_output_are_refused_with_the_remedy(photos, tmp_path):
    (photos / "a.webp").write_bytes(b"x")

    with pytest.raises(OutputCollision, match=r"'a.jpg' and 'a.webp' would both be written to 'a.png'.*--name"):
        Pictures(photos, tmp_path / "out", CUTOUT).scan()

    named = OutputOptions(outputs=(OutputKind.CUTOUT,), name="{dir}/{name}.{ext}")
    assert len(keys(Pictures(photos, tmp_path / "out", named))) == 3
