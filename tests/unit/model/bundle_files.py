"""Bundles of a few bytes each."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from worker.contract.errors import ObjectMissing, StoreUnavailable
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo

XML = "openvino_fp32/net_64x64_fp32.xml"
BIN = "openvino_fp32/net_64x64_fp32.bin"
FILES = {XML: b"<net/>", BIN: b"\x00\x01weights"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DIGEST = sha(f"{sha(FILES[XML])}\n{sha(FILES[BIN])}\n".encode())
"""Computed independently of the code under test, so that a change of the definition fails."""


def manifest(files: dict[str, bytes], /, **changes: object) -> bytes:
    """Return a `manifest.json` of these files; `changes` replaces top-level keys."""
    body = {
        "schema_version": 1,
        "name": "net",
        "description": "a net",
        "license": "MIT",
        "files": {name: {"sha256": sha(data), "bytes": len(data)} for name, data in files.items()},
        "tools": {"unknown": "is ignored"},
    }
    return json.dumps(body | changes).encode()


def write_bundle(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


class FakeObjects:
    """The S3 port over a dict. Records downloads, and fails for the key in `break_on`."""

    def __init__(self, url: str, files: dict[str, bytes]) -> None:
        self.folder = S3Url.folder(url)
        self.files = dict(files)
        self.downloads: list[str] = []
        self.break_on: str = ""
        self.blocks: list[int] = []
        """Sizes reported for each download; by default one block."""
        self.before: Callable[[str], None] = lambda _: None
        self.lock = threading.Lock()

    def list(self, folder: S3Url) -> Iterator[ObjectInfo]:
        assert folder == self.folder
        for key, data in self.files.items():
            yield ObjectInfo(key, len(data), f"etag-{sha(data)[:8]}", {})

    def download(self, place: S3Url, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        key = place.key.removeprefix(self.folder.key)
        with self.lock:
            self.downloads.append(key)
        self.before(key)
        if key not in self.files:
            raise ObjectMissing(f"{place} does not exist")
        if key == self.break_on:
            path.write_bytes(self.files[key][:3])
            raise StoreUnavailable(f"{place}: the connection broke")
        path.write_bytes(self.files[key])
        if on_bytes:
            for byte_count in self.blocks or [len(self.files[key])]:
                on_bytes(byte_count)
