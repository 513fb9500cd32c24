"""Find the peak memory that a bundle states, before a worker starts and without asking a server.

`worker model import` measures it and writes it into the bundle manifest. A bundle in S3 or on the hub is looked up in
the cache: before its first download nothing is known.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from worker.contract.errors import MaskmillError
from worker.contract.s3url import S3Url
from worker.contract.settings import ModelSettings
from worker.cpu.memory import MeasuredPeak
from worker.model.format.layout import MANIFEST_NAME, read_listing
from worker.model.format.manifest import BundleManifest, read_bundle_manifest
from worker.model.format.variant import choose
from worker.model.sources import bundles, hub_client
from worker.model.sources.hub_client import HubRepository

_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""


def measured_peak(model: ModelSettings, recommended: Sequence[str], arithmetic: str) -> MeasuredPeak | None:
    """Return the measured peak memory of the variant that would run; None if it is not known.

    Args:
        model: source, name, size and precision.
        recommended: precisions, the one that this CPU runs best first.
        arithmetic: of the float part. If it was not measured, the one that needs the most memory counts.
    """
    # Whatever is wrong with the bundle is reported by the worker that loads it, not by the plan.
    with contextlib.suppress(MaskmillError):
        manifest = _manifest(model)
        if manifest and manifest.memory:
            chosen = choose(read_listing(manifest.files), model, recommended, manifest.failed_variants()).candidate
            measured = manifest.memory.get(chosen.xml, {})
            if measured:
                known = arithmetic if arithmetic in measured else max(measured, key=lambda a: measured[a].stream_mib)
                peak = measured[known]
                return MeasuredPeak(peak.process_mib, peak.stream_mib, f"{chosen.label} in {known}")
    return None


def _manifest(model: ModelSettings) -> BundleManifest | None:
    cache_dir = model.cache_dir.expanduser()
    if model.source.startswith("s3://"):
        return _cached(cache_dir, str(S3Url.folder(model.source)))
    if model.source.startswith(hub_client.PREFIX):
        return _cached(cache_dir, f"{hub_client.endpoint()} {HubRepository.parse(model.source)}")
    return bundles.survey(model).manifest


def _cached(cache_dir: Path, key: str) -> BundleManifest | None:
    """The newest manifest of a source in the cache."""
    home = cache_dir / "bundles" / hashlib.sha256(key.encode()).hexdigest()[:_FOLDER_DIGITS]
    found = sorted(home.glob(f"*/{MANIFEST_NAME}"), key=lambda path: path.stat().st_mtime)
    return read_bundle_manifest(found[-1]) if found else None
