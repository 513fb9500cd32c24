"""Find the bundle that the settings name, pick a variant, verify it: `locate`.

    builtin:NAME        inside the package
    /some/folder        on this machine
    s3://bucket/prefix  fetched into the cache

Nothing here opens a model: its XML stays untrusted bytes until the digest is checked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from worker.contract.errors import BundleError, BundleNotFound, SourceError
from worker.contract.objects import S3Url
from worker.contract.settings import ModelSettings
from worker.model.bundle import Bundle, Variant, choose
from worker.model.fetch import Objects, Remote, fetch
from worker.model.layout import MANIFEST_NAME, Candidate, Listing, read_listing
from worker.model.manifest import Manifest, read_manifest, variant_digest, verified_sha256

BUILTIN = "builtin:"

MAX_OBJECTS = 10_000
"""A bundle has a few dozen files; a prefix with more is not one, and is not listed to its end."""


@dataclass(frozen=True)
class _Copy:
    """Files on this disk, not yet verified."""

    root: Path
    manifest: Manifest | None
    remedy: str
    """What to do about a file whose digest is wrong."""


@dataclass(frozen=True)
class _Folder:
    """A bundle on this disk."""

    root: Path
    remedy: str

    def listing(self) -> Listing:
        try:
            inner = itertools.chain.from_iterable(f.iterdir() for f in self.root.glob("openvino_*") if f.is_dir())
            files = [p for p in itertools.chain(self.root.iterdir(), inner) if p.is_file()]
        except OSError as error:
            raise BundleError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
        return read_listing(p.relative_to(self.root).as_posix() for p in files)

    def bring(self, listing: Listing, _: Candidate) -> _Copy:
        manifest = read_manifest(self.root / MANIFEST_NAME) if listing.has_manifest else None
        return _Copy(self.root, manifest, self.remedy)


@dataclass(frozen=True)
class _Bucket:
    """A bundle in S3, listed."""

    remote: Remote
    objects: Objects
    cache_dir: Path

    def listing(self) -> Listing:
        return read_listing(self.remote.files)

    def bring(self, _: Listing, candidate: Candidate) -> _Copy:
        fetched = fetch(self.remote, candidate, self.cache_dir, self.objects)
        return _Copy(fetched.root, fetched.manifest, f"delete {fetched.root}, it will be fetched again")


def locate(settings: ModelSettings, objects: Objects | None = None, recommended: Sequence[str] = ()) -> Bundle:
    """The bundle to run, on this disk and verified.

    Args:
        settings: source, name, size and precision.
        objects: the S3 port; needed for an `s3://` source only.
        recommended: precisions in the order this CPU runs them best.

    Raises:
        BundleNotFound: nothing there, or nothing that fits; lists what is.
        DigestMismatch: a file is not the one its manifest describes; names file, expected, got and remedy.
        BundleError: the bundle is incomplete or unreadable, or the cache cannot be written.
        ServiceError: from the S3 port.
    """
    place = _place(settings, objects)
    listing = place.listing()
    choice = choose(listing, settings, recommended)
    copy = place.bring(listing, choice.candidate)
    variant = _verified(copy, choice.candidate)
    return Bundle(
        source=settings.source,
        variant=variant,
        reason=choice.reason,
        warnings=tuple(_warnings(settings, listing, variant)),
        description=copy.manifest.description if copy.manifest else "",
        license=copy.manifest.license if copy.manifest else "",
    )


def available(settings: ModelSettings, objects: Objects | None = None) -> Listing:
    """All variants that the source holds; nothing is fetched or verified.

    Raises:
        BundleNotFound: no such source.
        ServiceError: from the S3 port.
    """
    return _place(settings, objects).listing()


def _place(settings: ModelSettings, objects: Objects | None) -> _Folder | _Bucket:
    source = settings.source
    if source.startswith(BUILTIN):
        return _builtin(source.removeprefix(BUILTIN))
    if source.startswith("s3://"):
        if objects is None:
            raise BundleError(f"{source} is in S3, and no S3 connection was given to look there")
        return _Bucket(_listed(source, objects), objects, settings.cache_dir.expanduser())
    if "://" in source:
        raise BundleNotFound(f"{source}: a model comes from builtin:NAME, a folder or s3://bucket/prefix")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise BundleNotFound(f"{root} is not a folder; set MASKMILL_MODEL__SOURCE to the folder of a bundle")
    return _Folder(root, "copy the bundle again, or correct its manifest.json if the change was meant")


def builtin_root() -> Path:
    """Folder of the bundles inside the package.

    Raises:
        BundleError: the package was not installed as plain files, which OpenVINO needs.
    """
    root = resources.files("worker.model") / "builtin"
    if not isinstance(root, Path):
        raise BundleError("the built-in models are inside an archive; install maskmill unpacked (pip does)")
    return root


def _builtin(name: str) -> _Folder:
    root = builtin_root()
    names = sorted(p.name for p in root.iterdir() if any(p.glob("openvino_*"))) if root.is_dir() else []
    if name not in names:  # also keeps `..` and slashes out
        raise BundleNotFound(f"no built-in model {name!r}; there is: {', '.join(names) or 'none'}")
    return _Folder(root / name, "the installation is damaged: install maskmill again")


def _listed(source: str, objects: Objects) -> Remote:
    try:
        url = S3Url.folder(source)
    except SourceError as error:
        raise BundleNotFound(f"{error}; correct MASKMILL_MODEL__SOURCE") from error
    infos = list(itertools.islice(objects.list(url), MAX_OBJECTS + 1))
    if len(infos) > MAX_OBJECTS:
        raise BundleNotFound(f"{url} holds more than {MAX_OBJECTS} objects; name the folder of one bundle")
    return Remote(url, {info.key: info for info in infos})


def _verified(copy: _Copy, candidate: Candidate) -> Variant:
    xml, weights = copy.root / candidate.xml, copy.root / candidate.bin
    digest = variant_digest(
        verified_sha256(copy.manifest, candidate.xml, xml, remedy=copy.remedy),
        verified_sha256(copy.manifest, candidate.bin, weights, remedy=copy.remedy),
    )
    return Variant(candidate.name, candidate.size, candidate.precision, xml, weights, digest)


def _warnings(settings: ModelSettings, listing: Listing, variant: Variant) -> list[str]:
    warnings = []
    if listing.left_out:
        warnings.append(f"{settings.source}: left out, not named as a variant: {', '.join(listing.left_out)}")
    if not listing.has_manifest:
        warnings.append(
            f"{settings.source} has no {MANIFEST_NAME}: the digest {variant.digest} was computed from the files as "
            "they are, not checked against anything"
        )
    return warnings
