"""Find the bundle that the settings name, pick a variant, verify it: `locate`.

    builtin:NAME        inside the package
    /some/folder        on this machine
    s3://bucket/prefix  fetched into the cache
    hf://owner/name     fetched into the cache, at one commit

Nothing here opens a model: its XML stays untrusted bytes until the digest is checked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from worker.contract.errors import BundleError, BundleNotFound, SourceError
from worker.contract.s3url import S3Url
from worker.contract.settings import ModelSettings
from worker.model.format.layout import MANIFEST_NAME, Candidate, Listing, read_listing
from worker.model.format.manifest import Manifest, parse_manifest, variant_digest, verified_sha256
from worker.model.format.variant import Bundle, Variant, choose
from worker.model.sources import hub_cache, hub_client
from worker.model.sources.bundle_sources import Bucket, Copy, Folder, Place, Repository
from worker.model.sources.hub_client import HubSource
from worker.model.sources.progress import Progress
from worker.model.sources.s3_cache import Objects, Remote

BUILTIN = "builtin:"

MAX_OBJECTS = 10_000
"""A bundle has a few dozen files; a prefix with more is not one, and is not listed to its end."""


@dataclass(frozen=True)
class Survey:
    """What a source holds; nothing but a manifest was fetched, and nothing verified."""

    source: str
    """With the commit where the place has commits."""
    listing: Listing
    sizes: Mapping[str, int]
    """Path of every file relative to the root -> bytes."""
    manifest: Manifest | None
    facts: Mapping[str, Any]
    """The manifest as it stands, with the keys that loading does not need."""
    root: Path | None
    """Its folder, if it is on this disk as it is."""
    digests: str
    """Who vouches for the files when there is no manifest, in words; empty if nobody does."""
    warnings: tuple[str, ...]


def locate(
    settings: ModelSettings,
    objects: Objects | None = None,
    recommended: Sequence[str] = (),
    *,
    progress: Progress | None = None,
) -> Bundle:
    """The bundle to run, on this disk and verified.

    Args:
        settings: source, name, size and precision.
        objects: the S3 port; needed for an `s3://` source only.
        recommended: precisions in the order this CPU runs them best.
        progress: told how far each download is.

    Raises:
        BundleNotFound: nothing there, or nothing that fits; lists what is.
        DigestMismatch: a file is not the one its manifest describes; names file, expected, got and remedy.
        BundleError: the bundle is incomplete or unreadable, or the cache cannot be written.
        ServiceError: from the S3 port or the hub.
    """
    place = _place(settings, objects)
    listing = read_listing(place.sizes)
    choice = choose(listing, settings, recommended)
    copy = place.bring(choice.candidate, progress)
    variant = _verified(copy, choice.candidate)
    manifest = copy.manifest if listing.has_manifest else None
    return Bundle(
        source=place.source,
        variant=variant,
        reason=choice.reason,
        warnings=(*place.warnings, *_warnings(place, listing, variant)),
        description=manifest.description if manifest else "",
        license=manifest.license if manifest else "",
    )


def available(settings: ModelSettings, objects: Objects | None = None) -> Listing:
    """All variants that the source holds; nothing is fetched or verified.

    Raises:
        BundleNotFound: no such source.
        ServiceError: from the S3 port or the hub.
    """
    return read_listing(_place(settings, objects).sizes)


def survey(settings: ModelSettings, objects: Objects | None = None) -> Survey:
    """What the source holds, with what its manifest says.

    Raises:
        BundleNotFound: no such source.
        BundleError: the manifest cannot be read.
        ServiceError: from the S3 port or the hub.
    """
    place = _place(settings, objects)
    sizes = place.sizes
    listing = read_listing(sizes)
    text = place.manifest_bytes() if listing.has_manifest else b""
    manifest = parse_manifest(text, f"{place.source}/{MANIFEST_NAME}") if text else None
    root = place.root if isinstance(place, Folder) else None
    left_out = _left_out(place, listing)
    return Survey(
        place.source,
        listing,
        sizes,
        manifest,
        json.loads(text) if text else {},
        root,
        place.digests,
        (*place.warnings, *left_out),
    )


def _place(settings: ModelSettings, objects: Objects | None) -> Place:
    source, cache_dir = settings.source, settings.cache_dir.expanduser()
    if source.startswith(BUILTIN):
        return _builtin(source)
    if source.startswith("s3://"):
        if objects is None:
            raise BundleError(f"{source} is in S3, and no S3 connection was given to look there")
        return Bucket(source, _listed(source, objects), objects, cache_dir)
    if source.startswith(hub_client.PREFIX):
        return Repository(hub_cache.resolve(HubSource.parse(source), cache_dir))
    if "://" in source:
        raise BundleNotFound(
            f"{source}: a model comes from builtin:NAME, a folder, s3://bucket/prefix or hf://owner/name"
        )
    root = Path(source).expanduser()
    if not root.is_dir():
        raise BundleNotFound(f"{root} is not a folder; set MASKMILL_MODEL__SOURCE to the folder of a bundle")
    return Folder(source, root, "copy the bundle again, or correct its manifest.json if the change was meant")


def builtin_root() -> Path:
    """Folder of the bundles inside the package.

    Raises:
        BundleError: the package was not installed as plain files, which OpenVINO needs.
    """
    root = resources.files("worker.model") / "builtin"
    if not isinstance(root, Path):
        raise BundleError("the built-in models are inside an archive; install maskmill unpacked (pip does)")
    return root


def _builtin(source: str) -> Folder:
    name = source.removeprefix(BUILTIN)
    root = builtin_root()
    names = sorted(p.name for p in root.iterdir() if any(p.glob("openvino_*"))) if root.is_dir() else []
    if name not in names:  # also keeps `..` and slashes out
        raise BundleNotFound(f"no built-in model {name!r}; there is: {', '.join(names) or 'none'}")
    return Folder(source, root / name, "the installation is damaged: install maskmill again")


def _listed(source: str, objects: Objects) -> Remote:
    try:
        url = S3Url.folder(source)
    except SourceError as error:
        raise BundleNotFound(f"{error}; correct MASKMILL_MODEL__SOURCE") from error
    infos = list(itertools.islice(objects.list(url), MAX_OBJECTS + 1))
    if len(infos) > MAX_OBJECTS:
        raise BundleNotFound(f"{url} holds more than {MAX_OBJECTS} objects; name the folder of one bundle")
    return Remote(url, {info.key: info for info in infos})


def _verified(copy: Copy, candidate: Candidate) -> Variant:
    xml, weights = copy.root / candidate.xml, copy.root / candidate.bin
    digest = variant_digest(
        verified_sha256(copy.manifest, candidate.xml, xml, remedy=copy.remedy),
        verified_sha256(copy.manifest, candidate.bin, weights, remedy=copy.remedy),
    )
    return Variant(candidate.name, candidate.size, candidate.precision, xml, weights, digest)


def _left_out(place: Place, listing: Listing) -> list[str]:
    if not listing.left_out:
        return []
    return [f"{place.source}: left out, not named as a variant: {', '.join(listing.left_out)}"]


def _warnings(place: Place, listing: Listing, variant: Variant) -> list[str]:
    warnings = _left_out(place, listing)
    if not listing.has_manifest:
        checked = f"checked against {place.digests} only" if place.digests else "not checked against anything"
        warnings.append(
            f"{place.source} has no {MANIFEST_NAME}: the digest {variant.digest} was computed from the files as "
            f"they are, {checked}"
        )
    return warnings
