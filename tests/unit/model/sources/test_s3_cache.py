"""Fetching into the cache: interruptions and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.model.bundle_files import BIN, DIGEST, FILES, XML, FakeObjects, manifest
from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, StoreUnavailable
from worker.contract.settings import ModelSettings
from worker.model.sources import bundles

URL = "s3://models/nets/one/"
WITH_MANIFEST = {**FILES, "manifest.json": manifest(FILES)}


def files_under(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()} - {".lock"}


def locate(cache: Path, objects: FakeObjects):
    return bundles.locate(ModelSettings(source=URL, cache_dir=cache), objects)


@pytest.mark.parametrize("files", [FILES, WITH_MANIFEST], ids=["no manifest", "manifest"])
def test_an_interrupted_download_leaves_only_complete_files_and_is_continued(tmp_path, files):
    objects = FakeObjects(URL, files)
    objects.break_on = BIN

    with pytest.raises(StoreUnavailable):
        locate(tmp_path, objects)

    assert files_under(tmp_path) == {Path(XML).name, "manifest.json" if files is WITH_MANIFEST else "fetched.json"}

    objects.break_on = ""
    objects.downloads.clear()
    assert locate(tmp_path, objects).variant.digest == DIGEST
    assert [d for d in objects.downloads if d != "manifest.json"] == [BIN]


def test_an_interruption_at_the_first_file_leaves_nothing(tmp_path):
    objects = FakeObjects(URL, FILES)
    objects.break_on = XML

    with pytest.raises(StoreUnavailable):
        locate(tmp_path, objects)

    assert files_under(tmp_path) == set()


def test_the_partial_file_of_a_killed_process_is_removed(tmp_path):
    objects = FakeObjects(URL, FILES)
    stale = locate(tmp_path, objects).variant.bin
    stale.rename(stale.with_name(f"{stale.name}.part.8Ab3"))

    assert locate(tmp_path, objects).variant.digest == DIGEST
    assert not [name for name in files_under(tmp_path) if ".part" in name]


@pytest.mark.parametrize("name", [XML, BIN])
def test_a_file_damaged_in_s3_never_gets_its_name(tmp_path, name):
    damaged = bytes(len(FILES[name]))
    objects = FakeObjects(URL, {**WITH_MANIFEST, name: damaged})

    with pytest.raises(DigestMismatch, match="is damaged: upload the bundle again"):
        locate(tmp_path, objects)

    assert Path(name).name not in files_under(tmp_path)


def test_a_wrong_size_is_refused_before_the_download(tmp_path):
    objects = FakeObjects(URL, {**WITH_MANIFEST, XML: b"longer than described"})

    with pytest.raises(DigestMismatch, match="expected 6 bytes, S3 holds 21"):
        locate(tmp_path, objects)

    assert objects.downloads == ["manifest.json"]


def test_an_object_that_grows_during_the_download_is_refused(tmp_path):
    objects = FakeObjects(URL, FILES)
    objects.before = lambda key: objects.files.update({key: FILES[key] + b"more"})

    with pytest.raises(DigestMismatch, match="expected 6 bytes as listed, got 10"):
        locate(tmp_path, objects)


def test_an_object_that_disappears_is_reported(tmp_path):
    objects = FakeObjects(URL, FILES)
    objects.before = lambda key: objects.files.pop(key) and None

    with pytest.raises(BundleNotFound, match="although it was listed a moment ago"):
        locate(tmp_path, objects)


def test_a_manifest_that_leaves_out_the_variant_is_refused(tmp_path):
    objects = FakeObjects(URL, {**FILES, "manifest.json": manifest({XML: FILES[XML]})})

    with pytest.raises(DigestMismatch, match="not in its manifest"):
        locate(tmp_path, objects)


def test_a_broken_manifest_is_refused_and_not_kept(tmp_path):
    objects = FakeObjects(URL, {**FILES, "manifest.json": b"{"})

    with pytest.raises(BundleError, match="is not a bundle manifest of schema_version 1"):
        locate(tmp_path, objects)

    assert files_under(tmp_path) == set()


def test_a_manifest_too_large_is_not_downloaded(tmp_path):
    objects = FakeObjects(URL, {**FILES, "manifest.json": b" " * ((1 << 20) + 1)})

    with pytest.raises(BundleError, match=r"manifest\.json has 1048577 bytes, more than the 1048576 bytes allowed"):
        locate(tmp_path, objects)

    assert objects.downloads == []


def test_progress_adds_up_the_blocks_and_ends_with_the_whole_file(tmp_path):
    objects = FakeObjects(URL, {**FILES, BIN: bytes(100)})
    objects.blocks = [3, -3, 6]  # boto3 starts a broken request again
    seen: list[tuple[str, int, int]] = []

    bundles.locate(
        ModelSettings(source=URL, cache_dir=tmp_path), objects, on_progress=lambda *report: seen.append(report)
    )

    assert seen == [
        *((XML, received, 6) for received in (3, 0, 6, 6)),
        *((BIN, received, 100) for received in (3, 0, 6, 100)),
    ]


def test_a_cache_that_cannot_be_written_names_the_setting(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    with pytest.raises(BundleError, match="set MASKMILL_MODEL__CACHE_DIR"):
        locate(blocked, FakeObjects(URL, FILES))
