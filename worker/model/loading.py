"""From settings to a compiled network: choose a bundle for this CPU, verify it, compile it."""

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

if TYPE_CHECKING:
    from worker.model.inference.engine import Engine

log = logging.getLogger(__name__)


def recommendation() -> Recommendation:
    """What this machine's CPU runs best."""
    machine = topology.read()
    return isa.recommend(machine.flags, machine.memory_bytes)


def find_bundle(settings: Settings, store: ObjectStore, advice: Recommendation) -> Bundle:
    """The bundle of the settings, fetched if need be and verified; its reason and warnings are logged."""
    bundle = locate(settings.model, store, advice.precisions)
    log.info(bundle.reason, extra=event("bundle_selected", source=bundle.source, variant=bundle.variant.label))
    for warning in bundle.warnings:
        log.warning(warning, extra=event("bundle_warning"))
    return bundle


def load_engine(settings: Settings, bundle: Bundle, advice: Recommendation, *, streams: int, threads: int) -> Engine:
    """Compile a verified bundle; from here on this process has OpenVINO's threads and must not fork."""
    from worker.model.inference.engine import Engine  # the parent of a prefork worker must never load OpenVINO

    asked = settings.model.inference_precision
    return Engine.load(
        bundle.variant,
        streams=streams,
        threads=threads,
        inference_precision=advice.inference_precision if asked == "auto" else asked,
        cache_dir=settings.model.cache_dir.expanduser(),
        kernels=settings.model.kernels,
    )
