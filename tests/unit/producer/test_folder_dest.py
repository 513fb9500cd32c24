"""A folder as DEST of `submit`: only with services on this machine, and never where it could replace pictures."""

from __future__ import annotations

import pytest

from producer.folder_dest import find_folder, place_of, refuse_overlap
from worker.contract.errors import SettingsError
from worker.contract.settings import S3Settings

HERE = S3Settings(endpoint_url="http://127.0.0.1:9000")


@pytest.mark.parametrize("s3", [S3Settings(), S3Settings(endpoint_url="https://s3.example.org")])
def test_a_folder_needs_services_on_this_machine(s3):
    with pytest.raises(SettingsError, match=r"`maskmill serve`.*s3:// prefix.*producer download"):
        find_folder("./masks", s3)

    assert find_folder("s3://bucket/masks/", s3) is None


def test_a_folder_has_one_place_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [find_folder(text, HERE) for text in ("masks", "./masks/", str(tmp_path / "masks"))]

    assert len({place_of(folder) for folder in named}) == 1
    assert place_of(tmp_path / "other" / "masks") != place_of(named[0])


def test_a_file_is_refused(tmp_path):
    (tmp_path / "masks").write_bytes(b"")

    with pytest.raises(SettingsError, match=r"is a file"):
        find_folder(str(tmp_path / "masks"), HERE)


@pytest.mark.parametrize("dest", ["photos", "photos/masks", "."])
def test_a_folder_among_the_pictures_is_refused(tmp_path, dest):
    (tmp_path / "photos").mkdir()

    with pytest.raises(SettingsError, match=r"overlap.*photos-masks"):
        refuse_overlap([tmp_path / "photos"], tmp_path / dest)


def test_files_allow_any_folder_but_their_own(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")

    refuse_overlap([tmp_path / "a.jpg"], tmp_path / "masks")
    with pytest.raises(SettingsError):
        refuse_overlap([tmp_path / "a.jpg"], tmp_path)
