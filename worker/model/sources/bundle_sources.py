"""Where bundles lie: a folder, a prefix in S3, a repository on the hub. Each lists its files and brings one variant.

`store` makes the right one for a source, and verifies what it brings.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract.errors import BundleError, DigestMismatch
from worker.model.format.layout import MANIFEST_NAME, Candidate
from worker.model.format.manifest import MAX_MANIFEST_BYTES, Manifest, described, read_manifest
from worker.model.sources import hub_cache
from worker.model.sources.hub_cache import Resolved
from worker.model.sources.progress import Progress
from worker.model.sources.s3_cache import Objects, Remote, fetch


@dataclass(frozen=True)
class Copy:
    """Files on this disk, not yet verified."""

    root: Path
    manifest: Manifest | None
    """The bundle's own, or digests known from elsewhere, or None."""
    remedy: str
    """What to do about a file whose digest is wrong."""


class Place(Protocol):
    """A bundle somewhere."""

    @property
    def source(self) -> str:
        """As asked for, with the commit where the place has commits."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Path of every file relative to the root -> bytes."""

    @property
    def digests(self) -> str:
        """Who vouches for the files when there is no manifest, in words; empty if nobody does."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not as it should be with the place itself."""

    def manifest_bytes(self) -> bytes:
        """Of `manifest.json`, which `sizes` lists; not validated."""

    def bring(self, candidate: Candidate, progress: Progress | None) -> Copy:
        """Have the variant on this disk."""


@dataclass(frozen=True)
class Folder:
    """A bundle on this disk."""

    source: str
    root: Path
    remedy: str
    digests: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def sizes(self) -> Mapping[str, int]:
        """As in `Place`. Only the top and the precision folders are looked at."""
        try:
            inner = itertools.chain.from_iterable(f.iterdir() for f in self.root.glob("openvino_*") if f.is_dir())
            files = [p for p in itertools.chain(self.root.iterdir(), inner) if p.is_file()]
            return {p.relative_to(self.root).as_posix(): p.stat().st_size for p in files}
        except OSError as error:
            raise BundleError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error

    def manifest_bytes(self) -> bytes:
        """As in `Place`."""
        return _read_small(self.root / MANIFEST_NAME)

    def bring(self, _: Candidate, __: Progress | None) -> Copy:
        """As in `Place`: it is there."""
        path = self.root / MANIFEST_NAME
        return Copy(self.root, read_manifest(path) if path.is_file() else None, self.remedy)


@dataclass(frozen=True)
class Bucket:
    """A bundle in S3, listed."""

    source: str
    remote: Remote
    objects: Objects
    cache_dir: Path
    digests: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def sizes(self) -> Mapping[str, int]:
        """As in `Place`."""
        return {name: info.size for name, info in self.remote.files.items()}

    def manifest_bytes(self) -> bytes:
        """As in `Place`."""
        if self.remote.files[MANIFEST_NAME].size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{self.remote.url / MANIFEST_NAME} is too large to be the manifest of a bundle")
        with tempfile.TemporaryDirectory(prefix="maskmill-") as folder:
            path = Path(folder) / MANIFEST_NAME
            self.objects.download(self.remote.url / MANIFEST_NAME, path)
            return path.read_bytes()

    def bring(self, candidate: Candidate, progress: Progress | None) -> Copy:
        """As in `Place`."""
        fetched = fetch(self.remote, candidate, self.cache_dir, self.objects, progress)
        return Copy(fetched.root, fetched.manifest, f"delete {fetched.root}, it will be fetched again")


@dataclass(frozen=True)
class Repository:
    """A bundle on the hub, at one commit."""

    resolved: Resolved

    @property
    def source(self) -> str:
        """As in `Place`."""
        return self.resolved.snapshot.source

    @property
    def sizes(self) -> Mapping[str, int]:
        """As in `Place`."""
        return {name: file.bytes for name, file in self.resolved.snapshot.files.items()}

    @property
    def digests(self) -> str:
        """As in `Place`."""
        return f"the hub, for commit {self.resolved.snapshot.commit}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """As in `Place`: the hub did not answer."""
        if not self.resolved.offline:
            return ()
        return (f"FALLBACK to the copy of {self.source} in the cache: {self.resolved.offline}",)

    def manifest_bytes(self) -> bytes:
        """As in `Place`."""
        return _read_small(hub_cache.bring(self.resolved, [MANIFEST_NAME]) / MANIFEST_NAME)

    def bring(self, candidate: Candidate, progress: Progress | None) -> Copy:
        """As in `Place`."""
        names = [candidate.xml, candidate.bin]
        own = MANIFEST_NAME in self.sizes
        root = hub_cache.bring(self.resolved, [MANIFEST_NAME, *names] if own else names, progress)
        manifest = hub_cache.described(self.resolved, root, names)
        if own:
            manifest = self._agreeing(read_manifest(root / MANIFEST_NAME), manifest)
        return Copy(root, manifest, f"delete {root}, it will be fetched again")

    def _agreeing(self, own: Manifest, of_hub: Manifest) -> Manifest:
        for name, facts in of_hub.files.items():
            if described(own, name).sha256 != facts.sha256:
                raise DigestMismatch(
                    f"{self.source} contradicts itself: {name} has SHA-256 {facts.sha256}, its {MANIFEST_NAME} says "
                    f"{own.files[name].sha256}; tell its owner, or name another revision"
                )
        return own


def _read_small(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} has more than {MAX_MANIFEST_BYTES} bytes: it is not the manifest of a bundle")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
