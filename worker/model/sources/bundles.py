"""Find the bundle that the settings name, choose a variant, fetch and verify it.

    locate     the chosen variant on this disk, verified
    survey     the contents of a source and its manifest, nothing else fetched
    available  the variants of a source, nothing fetched

No function here opens a model: its XML stays untrusted until its digest has been checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.settings import ModelSettings
from worker.model.format.layout import MANIFEST_NAME, Candidate, Listing, read_listing
from worker.model.format.manifest import BundleManifest, parse_bundle_manifest, variant_digest, verified_sha256
from worker.model.format.variant import Bundle, Variant, choose
from worker.model.sources import catalogue, hub_client, prepared
from worker.model.sources.bundle_sources import (
    BUILTIN_PREFIX,
    BuiltinSource,
    BundleSource,
    FolderSource,
    HubSource,
    LocalCopy,
    S3Source,
)
from worker.model.sources.prepared import NamedSource
from worker.model.sources.progress import OnProgress
from worker.model.sources.s3_cache import Objects

MAX_FILE_BYTES = 16 * 1024**3
"""Largest file of a bundle. The largest known network has 0.9 GB of weights; a sparse file of terabytes would be hashed
for hours."""


@dataclass(frozen=True)
class Survey:
    """The contents of a source; only its manifest was fetched, and nothing was verified."""

    source: str
    """The source as requested; a hub source includes the commit."""

    listing: Listing
    sizes: Mapping[str, int]
    """Path of every file relative to the root -> bytes."""

    manifest: BundleManifest | None
    facts: Mapping[str, Any]
    """The manifest as JSON, including the keys that loading does not need."""

    root: Path | None
    """The folder of the bundle, if it is one of this disk."""

    digest_origin: str
    """Where digests come from if there is no manifest; empty if there are none."""

    warnings: tuple[str, ...]


def locate(
    settings: ModelSettings,
    objects: Objects | None = None,
    recommended: Sequence[str] = (),
    *,
    on_progress: OnProgress | None = None,
) -> Bundle:
    """Return the bundle to run, on this disk and verified.

    Args:
        settings: source, name, size and precision.
        objects: the S3 port; needed for an `s3://` source only.
        recommended: precisions, the one that this CPU runs best first.
        on_progress: called while files download.

    Raises:
        BundleNotFound: there is no such bundle, or no variant fits; lists what is available.
        DigestMismatch: a file does not match its manifest; names file, expected, got and remedy.
        BundleError: the bundle is incomplete or unreadable, or the cache cannot be written.
        ServiceError: from the S3 port or the hub.
    """
    source = _resolve(settings, objects)
    listing = read_listing(source.sizes)
    choice = choose(listing, settings, recommended)
    _check_sizes(source, choice.candidate)
    copy = source.fetch(choice.candidate, on_progress)
    manifest = copy.manifest if listing.has_manifest else None
    if manifest and (failed := manifest.failed_variants()):
        # Looked at only now, because the manifest comes with the files: most bundles need one fetch.
        fast, choice = choice, choose(listing, settings, recommended, failed)
        if choice.candidate != fast.candidate:
            _check_sizes(source, choice.candidate)
            copy = source.fetch(choice.candidate, on_progress)
    variant = _verify(copy, choice.candidate)
    return Bundle(
        source=source.source,
        variant=variant,
        reason=choice.reason,
        warnings=(*source.warnings, *_left_out(source, listing), *_missing_manifest(source, listing, variant)),
        description=manifest.description if manifest else "",
        license=manifest.license if manifest else "",
    )


def available(settings: ModelSettings, objects: Objects | None = None) -> Listing:
    """Return all variants of the source without fetching or verifying anything.

    Raises:
        BundleNotFound: there is no such source.
        ServiceError: from the S3 port or the hub.
    """
    return read_listing(_resolve(settings, objects).sizes)


def survey(settings: ModelSettings, objects: Objects | None = None) -> Survey:
    """Return the contents of the source and its manifest.

    Raises:
        BundleNotFound: there is no such source.
        BundleError: the manifest cannot be read.
        ServiceError: from the S3 port or the hub.
    """
    source = _resolve(settings, objects)
    sizes = source.sizes
    listing = read_listing(sizes)
    text = source.manifest_bytes() if listing.has_manifest else b""
    return Survey(
        source=source.source,
        listing=listing,
        sizes=sizes,
        manifest=parse_bundle_manifest(text, f"{source.source}/{MANIFEST_NAME}") if text else None,
        facts=json.loads(text) if text else {},
        root=source.root if isinstance(source, FolderSource) else None,
        digest_origin=source.digest_origin,
        warnings=(*source.warnings, *_left_out(source, listing)),
    )


def _resolve(settings: ModelSettings, objects: Objects | None) -> BundleSource:
    """Return the source that the settings name, by the form of its address."""
    resolution = prepared.resolve_default(settings)
    source, cache_dir = resolution.model.source, settings.cache_dir.expanduser()
    if resolution.is_fallback:
        return replace(BuiltinSource.resolve(source), warnings=(resolution.why,))
    if entry := catalogue.find(source):
        return NamedSource.of(entry, settings)
    if source.startswith(BUILTIN_PREFIX):
        return BuiltinSource.resolve(source)
    if source.startswith("s3://"):
        if objects is None:
            raise BundleError(f"{source} is in S3, but no S3 connection was given")
        return S3Source.resolve(source, objects, cache_dir)
    if source.startswith(hub_client.PREFIX):
        return HubSource.resolve(source, cache_dir)
    if "://" in source:
        raise BundleNotFound(
            f"{source} is not a model source; use builtin:NAME, a folder, s3://bucket/prefix or hf://owner/name, or a "
            "name that `worker model list --known` shows"
        )
    return FolderSource.resolve(source)


def _check_sizes(source: BundleSource, candidate: Candidate) -> None:
    """Refuse files that can be no network before they are fetched and hashed."""
    sizes = source.sizes
    for name in (candidate.xml, candidate.bin):
        if sizes[name] > MAX_FILE_BYTES:
            raise BundleError(
                f"{source.source}: {name} has {sizes[name]:,} bytes, more than the {MAX_FILE_BYTES:,} allowed; check "
                "that it belongs to a network"
            )


def _verify(copy: LocalCopy, candidate: Candidate) -> Variant:
    xml, weights = copy.root / candidate.xml, copy.root / candidate.bin
    digest = variant_digest(
        verified_sha256(copy.manifest, candidate.xml, xml, remedy=copy.remedy),
        verified_sha256(copy.manifest, candidate.bin, weights, remedy=copy.remedy),
    )
    return Variant(candidate.name, candidate.size, candidate.precision, xml, weights, digest)


def _left_out(source: BundleSource, listing: Listing) -> list[str]:
    """A warning about files that are not named like a variant, if there are any."""
    if not listing.left_out:
        return []
    return [f"{source.source}: ignored, not named like a variant: {', '.join(listing.left_out)}"]


def _missing_manifest(source: BundleSource, listing: Listing, variant: Variant) -> list[str]:
    """A warning about a bundle without a manifest."""
    if listing.has_manifest:
        return []
    checked = f"checked against {source.digest_origin} only" if source.digest_origin else "not checked"
    return [
        f"{source.source} has no {MANIFEST_NAME}: the digest {variant.digest} was computed from the files themselves, "
        f"{checked}"
    ]
