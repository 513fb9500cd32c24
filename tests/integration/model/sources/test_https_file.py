"""Downloads from a release page that speaks TLS on the loopback."""

from __future__ import annotations

import pytest

from support.certificates import Certificates
from support.release_server import RunningRelease
from worker.contract.errors import AccessDenied, BundleNotFound, DigestMismatch, HubUnavailable, ServiceError
from worker.model.sources import https_file

DATA = bytes(range(256)) * 64


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture
def release(certificates, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    monkeypatch.setattr(https_file, "PAUSE_SECONDS", 0.001)
    with RunningRelease(certificates.server) as release:
        release.files["/net.onnx"] = DATA
        yield release


def fetch(release, tmp_path, path="/net.onnx", **options):
    part = tmp_path / "net.part"
    https_file.download(release.url + path, part, **options)
    return part.read_bytes()


def test_a_file_is_downloaded_with_progress(release, tmp_path):
    seen = []

    assert fetch(release, tmp_path, size=len(DATA), on_received=lambda *report: seen.append(report)) == DATA
    assert seen[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_a_broken_download_is_resumed(release, tmp_path, size):
    release.cuts = [100, 200]

    assert fetch(release, tmp_path, size=size) == DATA
    assert [wanted for _, wanted in release.requests] == ["", "bytes=100-", "bytes=300-"]


def test_a_later_call_resumes_what_an_earlier_one_left(release, tmp_path):
    (tmp_path / "net.part").write_bytes(DATA[:500])

    assert fetch(release, tmp_path, size=len(DATA)) == DATA
    assert release.requests == [("/net.onnx", "bytes=500-")]


def test_a_complete_part_needs_no_request(release, tmp_path):
    (tmp_path / "net.part").write_bytes(DATA)

    assert fetch(release, tmp_path, size=len(DATA)) == DATA
    assert release.requests == []


def test_a_server_without_ranges_sends_the_file_again(release, tmp_path):
    release.cuts, release.ranges = [100], False

    assert fetch(release, tmp_path, size=len(DATA)) == DATA


def test_a_part_that_is_longer_than_the_file_is_discarded(release, tmp_path):
    (tmp_path / "net.part").write_bytes(DATA + b"x")

    assert fetch(release, tmp_path) == DATA


def test_a_redirect_to_another_https_address_is_followed(release, tmp_path):
    release.redirects["/latest"] = release.url + "/net.onnx"

    assert fetch(release, tmp_path, "/latest", size=len(DATA)) == DATA


def test_a_redirect_to_http_is_refused(release, tmp_path):
    release.redirects["/latest"] = release.url.replace("https", "http") + "/net.onnx"

    with pytest.raises(ServiceError, match="which is not https"):
        fetch(release, tmp_path, "/latest")
    assert len(release.requests) == 1


def test_an_http_address_is_refused(tmp_path):
    with pytest.raises(ServiceError, match="not https"):
        https_file.download("http://127.0.0.1:9/net.onnx", tmp_path / "part")


def test_a_file_of_another_size_is_refused_before_its_body_is_read(release, tmp_path):
    with pytest.raises(DigestMismatch, match=f"expected 10 bytes, the server announces {len(DATA)}"):
        fetch(release, tmp_path, size=10)
    assert (tmp_path / "net.part").read_bytes() == b""


def test_a_body_without_a_length_stops_at_the_limit(release, tmp_path, monkeypatch):
    release.says_length = False
    monkeypatch.setattr(https_file, "MAX_BYTES", 1000)

    with pytest.raises(DigestMismatch, match="more than 1000 bytes"):
        fetch(release, tmp_path)
    assert (tmp_path / "net.part").stat().st_size <= 1000


@pytest.mark.parametrize(
    ("status", "error"), [(404, BundleNotFound), (403, AccessDenied), (418, ServiceError), (503, HubUnavailable)]
)
def test_a_refusal_names_address_and_status(release, tmp_path, status, error):
    release.status = status

    with pytest.raises(error, match=rf"{release.url}/net.onnx: .*{status}"):
        fetch(release, tmp_path)
    assert len(release.requests) == (3 if error is HubUnavailable else 1)


def test_a_certificate_of_an_unrelated_authority_is_refused(release, certificates, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.unrelated))

    with pytest.raises(HubUnavailable, match="SSL_CERT_FILE"):
        fetch(release, tmp_path)
    assert release.requests == []
