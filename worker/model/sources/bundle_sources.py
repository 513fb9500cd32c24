"""The kinds of bundle source. Each lists its files and makes one variant available on this disk.

    BuiltinSource   builtin:NAME          inside the package
    FolderSource    /some/folder          on this machine
    S3Source        s3://bucket/prefix    fetched into the cache
    HubSource       hf://owner/name       fetched into the cache, at one commit

`worker.model.sources.bundles` picks the class for a source and verifies what it fetches.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar, Protocol

from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch, SourceError
from worker.contract.s3url import S3Url
from worker.model.format.layout import MANIFEST_NAME, Candidate
from worker.model.format.manifest import (
    BundleManifest,
    check_manifest_size,
    read_bundle_manifest,
    read_manifest_bytes,
)
from worker.model.sources import hub_cache, s3_cache
from worker.model.sources.hub_cache import ResolvedRepository
from worker.model.sources.hub_client import HubRepository
from worker.model.sources.progress import OnProgress
from worker.model.sources.s3_cache import Objects, S3Bundle

BUILTIN_PREFIX = "builtin:"

MAX_OBJECTS = 10_000
"""Limit of a listing: a bundle has a few dozen files, so a prefix with more objects is not a bundle."""


@dataclass(frozen=True)
class LocalCopy:
    """Files of a variant on this disk, not yet verified."""

    root: Path
    manifest: BundleManifest | None
    """The manifest of the bundle, else digests from another origin, else None."""

    remedy: str
    """What to do about a file with a wrong digest, for the message."""


class BundleSource(Protocol):
    """A bundle somewhere."""

    @property
    def source(self) -> str:
        """The source as requested; a hub source includes the commit."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Path of every file relative to the root -> bytes."""

    @property
    def digest_origin(self) -> str:
        """Where digests come from if there is no manifest; empty if there are none."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems with the source itself."""

    def manifest_bytes(self) -> bytes:
        """Return the content of `manifest.json`, which `sizes` must list, without validating it."""

    def fetch(self, candidate: Candidate, on_progress: OnProgress | None) -> LocalCopy:
        """Make a variant available on this disk."""


@dataclass(frozen=True)
class FolderSource:
    """A bundle in a folder of this machine."""

    source: str
    root: Path
    digest_origin: str = ""
    warnings: tuple[str, ...] = ()

    remedy: ClassVar[str] = "copy the bundle again, or correct its manifest.json if the change was intended"
    only_within: ClassVar[bool] = True
    """Links must not lead out of the folder."""

    @classmethod
    def resolve(cls, source: str) -> FolderSource:
        """Return the bundle in a folder.

        Raises:
            BundleNotFound: there is no such folder.
        """
        root = Path(source).expanduser()
        if root.is_file() and root.suffix.lower() in (".onnx", ".tflite", ".xml"):
            raise BundleNotFound(
                f"{root} is one network, not a bundle: import it with `worker model import {root} --output BUNDLE`, "
                "and set MASKMILL_MODEL__SOURCE to that folder"
            )
        if not root.is_dir():
            raise BundleNotFound(f"{root} is not a folder; set MASKMILL_MODEL__SOURCE to the folder of a bundle")
        return cls(source, root)

    @property
    def sizes(self) -> Mapping[str, int]:
        """See `BundleSource`. Only the top level and the precision folders are read."""
        try:
            inner = itertools.chain.from_iterable(f.iterdir() for f in self.root.glob("openvino_*") if f.is_dir())
            # What is neither a file nor a folder is listed, so that it is refused and not taken for missing.
            files = [p for p in itertools.chain(self.root.iterdir(), inner) if p.exists() and not p.is_dir()]
            return {p.relative_to(self.root).as_posix(): p.stat().st_size for p in files}
        except OSError as error:
            raise BundleError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error

    def manifest_bytes(self) -> bytes:
        """See `BundleSource`."""
        self._check_file(MANIFEST_NAME)
        return read_manifest_bytes(self.root / MANIFEST_NAME)

    def fetch(self, candidate: Candidate, _: OnProgress | None) -> LocalCopy:
        """See `BundleSource`. The files are used in place.

        Raises:
            BundleError: a file is none, such as a pipe or a device, or a link that leads out of the bundle.
        """
        path = self.root / MANIFEST_NAME
        has_manifest = path.exists() or path.is_symlink()
        for name in (candidate.xml, candidate.bin, *([MANIFEST_NAME] if has_manifest else [])):
            self._check_file(name)
        return LocalCopy(self.root, read_bundle_manifest(path) if has_manifest else None, self.remedy)

    def _check_file(self, name: str) -> None:
        """Refuse what would read files outside the bundle, or wait for ever."""
        path = self.root / name
        if not path.is_file():
            raise BundleError(f"{path} is not a regular file; copy the bundle again")
        target = path.resolve()
        if self.only_within and not target.is_relative_to(self.root.resolve()):
            raise BundleError(
                f"{path} is a link to {target}, outside the bundle; copy the files instead of links to them: "
                f"cp --recursive --dereference {self.root} NEW_FOLDER"
            )
        if target.stat().st_size == 0:
            raise BundleError(f"{path} is empty; copy the bundle again")


class BuiltinSource(FolderSource):
    """A bundle inside the package."""

    remedy: ClassVar[str] = "the installation is damaged: install maskmill again"
    only_within: ClassVar[bool] = False  # some installers link all files of a package to a cache

    @classmethod
    def resolve(cls, source: str) -> BuiltinSource:
        """Return the bundle of a source such as `builtin:starter`.

        Raises:
            BundleNotFound: there is no built-in bundle of this name.
        """
        name = source.removeprefix(BUILTIN_PREFIX)
        root = builtin_root()
        names = sorted(p.name for p in root.iterdir() if any(p.glob("openvino_*"))) if root.is_dir() else []
        if name not in names:  # also rejects `..` and slashes
            raise BundleNotFound(f"no built-in model {name!r}; available: {', '.join(names) or 'none'}")
        return cls(source, root / name)


def builtin_root() -> Path:
    """Return the folder of the bundles inside the package.

    Raises:
        BundleError: the package is not installed as plain files, which OpenVINO needs.
    """
    root = resources.files("worker.model") / "builtin"
    if not isinstance(root, Path):
        raise BundleError("the built-in models are inside an archive; install maskmill unpacked (pip does)")
    return root


@dataclass(frozen=True)
class S3Source:
    """A bundle in S3, listed."""

    source: str
    bundle: S3Bundle
    objects: Objects
    cache_dir: Path
    digest_origin: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def resolve(cls, source: str, objects: Objects, cache_dir: Path) -> S3Source:
        """List the objects under `s3://bucket/prefix`.

        Raises:
            BundleNotFound: the URL is malformed, or the prefix holds more than `MAX_OBJECTS` objects.
            ServiceError: from the S3 port.
        """
        try:
            url = S3Url.folder(source)
        except SourceError as error:
            raise BundleNotFound(f"{error}; correct MASKMILL_MODEL__SOURCE") from error
        infos = list(itertools.islice(objects.list(url), MAX_OBJECTS + 1))
        if len(infos) > MAX_OBJECTS:
            raise BundleNotFound(f"{url} holds more than {MAX_OBJECTS} objects; name the folder of one bundle")
        return cls(source, S3Bundle(url, {info.key: info for info in infos}), objects, cache_dir)

    @property
    def sizes(self) -> Mapping[str, int]:
        """See `BundleSource`."""
        return {name: self.bundle.size_of(name) for name in self.bundle.files}

    def manifest_bytes(self) -> bytes:
        """See `BundleSource`."""
        url = self.bundle.url / MANIFEST_NAME
        check_manifest_size(self.bundle.size_of(MANIFEST_NAME), str(url))
        with tempfile.TemporaryDirectory(prefix="maskmill-") as folder:
            path = Path(folder) / MANIFEST_NAME
            self.objects.download(url, path)
            return path.read_bytes()

    def fetch(self, candidate: Candidate, on_progress: OnProgress | None) -> LocalCopy:
        """See `BundleSource`."""
        cached = s3_cache.fetch(self.bundle, candidate, self.cache_dir, self.objects, on_progress)
        return LocalCopy(cached.root, cached.manifest, f"delete {cached.root}, it will be fetched again")


@dataclass(frozen=True)
class HubSource:
    """A bundle on the Hugging Face hub, at one commit."""

    resolved: ResolvedRepository

    @classmethod
    def resolve(cls, source: str, cache_dir: Path) -> HubSource:
        """Resolve `hf://owner/name[@revision]` to a commit.

        Raises:
            BundleNotFound, AccessDenied, BundleError, HubUnavailable: see `worker.model.sources.hub_cache.resolve`.
        """
        return cls(hub_cache.resolve(HubRepository.parse(source), cache_dir))

    @property
    def source(self) -> str:
        """See `BundleSource`."""
        return self.resolved.snapshot.source

    @property
    def sizes(self) -> Mapping[str, int]:
        """See `BundleSource`."""
        return {name: file.bytes for name, file in self.resolved.snapshot.files.items()}

    @property
    def digest_origin(self) -> str:
        """See `BundleSource`."""
        return f"the hub, for commit {self.resolved.snapshot.commit}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `BundleSource`. Not empty if the hub did not answer and the cache is used instead."""
        if not self.resolved.offline:
            return ()
        return (f"FALLBACK to the copy of {self.source} in the cache: {self.resolved.offline}",)

    def manifest_bytes(self) -> bytes:
        """See `BundleSource`."""
        return read_manifest_bytes(hub_cache.fetch(self.resolved, [MANIFEST_NAME]) / MANIFEST_NAME)

    def fetch(self, candidate: Candidate, on_progress: OnProgress | None) -> LocalCopy:
        """See `BundleSource`."""
        names = [candidate.xml, candidate.bin]
        has_manifest = MANIFEST_NAME in self.sizes
        root = hub_cache.fetch(self.resolved, [MANIFEST_NAME, *names] if has_manifest else names, on_progress)
        manifest = hub_cache.manifest_from_hub(self.resolved, root, names)
        if has_manifest:
            manifest = self._check_agreement(read_bundle_manifest(root / MANIFEST_NAME), manifest)
        return LocalCopy(root, manifest, f"delete {root}, it will be fetched again")

    def _check_agreement(self, own: BundleManifest, of_hub: BundleManifest) -> BundleManifest:
        """Return the manifest of the bundle, if it agrees with the digests that the hub gives."""
        for name, facts in of_hub.files.items():
            expected = own.facts_of(name).sha256
            if expected != facts.sha256:
                raise DigestMismatch(
                    f"{self.source} contradicts itself: {name} has SHA-256 {facts.sha256}, but its {MANIFEST_NAME} "
                    f"says {expected}; report it to the owner, or choose another revision"
                )
        return own
