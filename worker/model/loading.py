"""Choose a bundle for this CPU, verify it and compile it, as the settings say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from worker.contract.log_fields import event
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.cpu import isa, topology
from worker.cpu.isa import Recommendation
from worker.model.format.variant import Bundle
from worker.model.sources.bundles import locate
from worker.model.sources.private_copy import private_copy

if TYPE_CHECKING:
    from worker.model.inference.engine import Engine

log = logging.getLogger(__name__)


def recommendation() -> Recommendation:
    """Return the precisions that suit the CPU of this machine."""
    machine = topology.read()
    return isa.recommend(machine.flags, machine.memory_bytes)


def find_bundle(settings: Settings, store: ObjectStore, advice: Recommendation) -> Bundle:
    """Return the verified bundle that the settings name, fetching it if necessary; log the reason and the warnings.

    Its files are the worker's own: those of a folder are copied into the cache.

    Raises:
        BundleNotFound, DigestMismatch, BundleError, ServiceError: see `worker.model.sources.bundles.locate`.
    """
    bundle = private_copy(locate(settings.model, store, advice.precisions), settings.model.cache_dir)
    log.info(bundle.reason, extra=event("bundle_selected", source=bundle.source, variant=bundle.variant.label))
    for warning in bundle.warnings:
        log.warning(warning, extra=event("bundle_warning"))
    return bundle


def load_engine(settings: Settings, bundle: Bundle, advice: Recommendation, *, streams: int, threads: int) -> Engine:
    """Compile a verified bundle. Afterwards this process has OpenVINO's threads and must not fork.

    Args:
        settings: inference precision, cache folder and use of the native kernels.
        bundle: from `find_bundle`.
        advice: from `recommendation`; decides the inference precision if the settings say `auto`.
        streams: images that are inferred in parallel.
        threads: inference threads over all streams.

    Raises:
        PlacementError, BundleError: see `worker.model.inference.engine.Engine.load`.
    """
    from worker.model.inference.engine import Engine  # a Celery parent imports this module but must not load OpenVINO

    requested = settings.model.inference_precision
    return Engine.load(
        bundle.variant,
        streams=streams,
        threads=threads,
        inference_precision=advice.inference_precision if requested == "auto" else requested,
        cache_dir=settings.model.cache_dir.expanduser(),
        kernels=settings.model.kernels,
    )
