"""Sources are tried in order, each failure is reported, and no file is used without a digest."""

from __future__ import annotations

import hashlib

import pytest

from unit.model.bundle_files import FakeObjects
from worker.contract.errors import BundleNotFound, DigestMismatch, HubUnavailable
from worker.model.sources import catalogue, published_file
from worker.model.sources.catalogue import HttpsFile, LocalFile, PackageFile, S3File
from worker.model.sources.published_file import FileRequest, fetch, parse_source

DATA = b"an onnx file"
SHA = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
URL = "https://releases.test/net.onnx"


def entry(**changes):
    facts = {"file": "net.onnx", "bytes": len(DATA), "sha256": SHA, "md5": None}
    facts["sources"] = (HttpsFile(kind="https", url=URL),)
    return catalogue.get("u2netp").model_copy(update=facts | changes)


@pytest.fixture
def web(monkeypatch):
    """What the release page sends; None if it cannot be reached. The list holds the addresses asked."""
    state = {"data": DATA, "asked": []}

    def download(url, part, *, size=None, on_received=None):
        state["asked"].append(url)
        if state["data"] is None:
            raise HubUnavailable("releases.test cannot be reached")
        part.write_bytes(state["data"])

    monkeypatch.setattr(published_file.https_file, "download", download)
    return state


def request(tmp_path, known=None, **options):
    return FileRequest(known or entry(), tmp_path / "home", tmp_path / "cache", **options)


def test_a_file_with_the_right_digest_is_kept(web, tmp_path):
    found = fetch(request(tmp_path))

    assert found.path.read_bytes() == DATA
    assert (found.sha256, found.verified_by, found.is_ours) == (SHA, "SHA-256 of the catalogue", True)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["net.onnx"]


def test_a_file_left_by_an_interrupted_run_is_not_fetched_again(web, tmp_path):
    fetch(request(tmp_path))

    assert fetch(request(tmp_path)).sha256 == SHA
    assert web["asked"] == [URL]


def test_a_damaged_file_left_by_an_earlier_run_is_replaced(web, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "net.onnx").write_bytes(b"damaged data")

    assert fetch(request(tmp_path)).path.read_bytes() == DATA


@pytest.mark.parametrize("data", [b"another file", b"longer than the file"])
def test_a_wrong_file_is_refused_and_removed(web, tmp_path, data):
    web["data"] = data

    with pytest.raises(BundleNotFound, match=r"net.onnx(.part)?: (SHA-256 )?expected"):
        fetch(request(tmp_path))
    assert list((tmp_path / "home").iterdir()) == []


def test_the_next_source_is_tried_and_the_failure_reported(web, tmp_path):
    web["data"] = None
    (tmp_path / "net.onnx").write_bytes(DATA)
    sources = (HttpsFile(kind="https", url=URL), LocalFile(kind="file", path=str(tmp_path)))
    said = []

    found = fetch(request(tmp_path, entry(sources=sources)), on_failure=said.append)

    assert (found.path, found.is_ours) == (tmp_path / "net.onnx", False)
    assert said == [f"{URL}: releases.test cannot be reached"]


def test_all_failures_and_the_remedy_are_named(web, tmp_path):
    web["data"] = None
    sources = (HttpsFile(kind="https", url=URL), LocalFile(kind="file", path=str(tmp_path / "nowhere")))

    with pytest.raises(BundleNotFound) as failed:
        fetch(request(tmp_path, entry(sources=sources)))

    said = str(failed.value)
    assert f"{URL}: releases.test cannot be reached" in said and f"there is no file {tmp_path / 'nowhere'}" in said
    assert "`worker model fetch u2netp --from FILE`" in said


def test_a_source_of_the_user_takes_the_place_of_the_known_ones(web, tmp_path):
    (tmp_path / "copy").write_bytes(DATA)

    found = fetch(request(tmp_path, sources=(LocalFile(kind="file", path=str(tmp_path / "copy")),)))

    assert found.path == tmp_path / "copy" and web["asked"] == []


@pytest.mark.parametrize("address", ["s3://bucket/nets/net.onnx", "s3://bucket/nets/"])
def test_a_file_in_s3(tmp_path, address):
    objects = FakeObjects("s3://bucket/nets", {"net.onnx": DATA})
    seen = []

    found = fetch(
        request(tmp_path, sources=(S3File(kind="s3", url=address),), open_objects=lambda: objects),
        lambda *report: seen.append(report),
    )

    assert found.path.read_bytes() == DATA and seen == [("net.onnx", len(DATA), len(DATA))]


def test_a_file_without_a_known_digest_is_not_even_downloaded(web, tmp_path):
    with pytest.raises(BundleNotFound, match=r"the digest of net.onnx is not known.*give it with --sha256"):
        fetch(request(tmp_path, entry(sha256=None, bytes=None)))
    assert web["asked"] == []


def test_the_user_gives_the_digest(web, tmp_path):
    unknown = entry(sha256=None, bytes=1)  # the size of another edition

    assert fetch(request(tmp_path, unknown, sha256=SHA)).verified_by == "SHA-256 given with --sha256"
    with pytest.raises(BundleNotFound, match="SHA-256 expected 000"):
        fetch(request(tmp_path / "b", unknown, sha256="0" * 64))


def test_a_digest_of_the_user_that_contradicts_the_catalogue_is_refused(web, tmp_path):
    with pytest.raises(DigestMismatch, match="import a different file with `worker model import`"):
        fetch(request(tmp_path, sha256="0" * 64))
    assert web["asked"] == []


def test_md5_counts_where_no_better_digest_is_published(web, tmp_path):
    assert fetch(request(tmp_path, entry(sha256=None, md5=MD5))).verified_by == "MD5 and size of the catalogue"
    with pytest.raises(BundleNotFound, match="MD5 expected 000"):
        fetch(request(tmp_path / "b", entry(sha256=None, md5="0" * 32)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URL, HttpsFile(kind="https", url=URL)),
        ("./net.onnx", LocalFile(kind="file", path="./net.onnx")),
        ("s3://bucket/net.onnx", S3File(kind="s3", url="s3://bucket/net.onnx")),
        ("pypi:a-b==1.2#a/net.onnx", PackageFile(kind="pypi", package="a-b", version="1.2", member="a/net.onnx")),
    ],
)
def test_a_source_as_the_user_writes_it(text, expected):
    assert parse_source(text) == expected


def test_a_hub_source_as_the_user_writes_it():
    source = parse_source("hf://owner/name@v1#model.safetensors")

    assert (source.repository, source.revision, source.file) == ("owner/name", "v1", "model.safetensors")


@pytest.mark.parametrize("text", ["http://host/net.onnx", "ftp://host/net", "https://user@host/x", "pypi:name#x"])
def test_what_is_not_a_source(text):
    with pytest.raises(BundleNotFound, match="is not a source of a file"):
        parse_source(text)
