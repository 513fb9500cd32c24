"""Upload local files to a real S3 server; unchanged copies are not sent again."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from producer.sources import local
from producer.sources.upload import upload, upload_folder
from worker.contract.errors import SourceError, StoreUnavailable
from worker.contract.s3url import S3Url


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos/d").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "d/ü.jpg"):
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "photos"


@pytest.fixture
def send(store, installation, folder):
    def send():
        sent = []
        target = upload_folder(S3Url(installation.bucket, "out/"), folder)
        items = list(upload(store, folder, local.folder_files(folder, folder, Counter()), target, sent.append))
        assert [item.key for item in items] == ["a.jpg", "b.jpg", "d/ü.jpg"]
        assert {i.key: store.get(target / i.key, max_bytes=99)[0] for i in items} == {
            i.key: (folder / i.key).read_bytes() for i in items
        }
        return sum(sent)

    return send


def test_unchanged_files_are_not_sent_again(folder, send):
    assert send() == 3
    assert send() == 0

    os.utime(folder / "a.jpg", ns=(1, 1))  # another time, older
    (folder / "b.jpg").write_bytes(b"longer than before")
    assert send() == 2
    assert send() == 0


def test_an_interrupted_upload_is_resumed(folder, send, store, monkeypatch):
    real = store.upload

    def fails(path, place, **more):
        if path.name == "b.jpg":
            raise StoreUnavailable("S3 answered 503")
        real(path, place, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, "upload", fails)
        with pytest.raises(StoreUnavailable):
            send()

    assert 1 <= send() <= 2


def test_copies_of_different_folders_are_separate(tmp_path):
    dest = S3Url("b", "out/")

    places = {str(upload_folder(dest, tmp_path / name)) for name in ("x/photos", "y/photos", "y/../x/photos")}

    assert len(places) == 2 and all(place.startswith("s3://b/out/_maskmill/uploads/photos-") for place in places)


def test_a_file_that_became_a_pipe_is_refused_and_not_read(folder, store, installation):
    items = local.folder_files(folder, folder, Counter())
    first = next(items)
    (folder / first.key).unlink()
    os.mkfifo(folder / first.key)

    with pytest.raises(SourceError, match=r"a\.jpg is no longer a file"):
        list(upload(store, folder, iter([first]), S3Url(installation.bucket, "out/"), lambda sent: None))
