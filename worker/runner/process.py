"""The resources of a model process: network, S3 and Redis, opened once after the fork and closed together."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from worker.contract import tracing
from worker.contract.errors import PlacementError
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.contract.log_fields import event
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.model.format.variant import Bundle
from worker.model.loading import find_bundle, load_engine, recommendation
from worker.processes.heap import keep_memory
from worker.runner.acceptance import Acceptance
from worker.runner.chunks import ChunkRunner, Identity
from worker.runner.parent_channel import ParentChannel
from worker.runner.picture_memory import PictureMemory
from worker.runner.pipeline import Network, Pipeline
from worker.runner.prefetch import Prefetcher
from worker.telemetry import metrics

log = logging.getLogger(__name__)

_REDIS_RETRIES = 12

_SWITCH_SECONDS = 0.0005
"""Interval after which a thread that runs Python code yields to another. The image threads need the interpreter briefly
between two long calls that release it. With Python's default of 5 ms they queue behind a thread that talks to S3 and a
core is idle: 2 % of the cores' time with a network that does 40 images/s."""


@dataclass(frozen=True)
class _Loaded:
    """The compiled network and how it was compiled."""

    network: Network
    bundle: Bundle
    facts: dict[str, Any]
    """As `Engine.describe` returns them."""

    seconds: float
    """Time to load and warm up."""

    @property
    def inference_precision(self) -> str:
        return str(self.facts["inference_precision"])


class ModelProcess:
    """Open it in the process that will run chunks, never before a fork."""

    def __init__(self, chunks: ChunkRunner, resources: ExitStack) -> None:
        """Not for callers: use `open`."""
        self.chunks = chunks
        self._resources = resources

    @classmethod
    def open(cls, settings: Settings, name: str, channel: ParentChannel) -> ModelProcess:
        """Load the network onto the cores of this process, connect, and register with the fleet.

        Args:
            settings: with `plan.streams` and `plan.threads` set, as the supervisor does.
            name: of the worker process, unique in the fleet.
            channel: to the parent.

        Raises:
            SetupError: the bundle or the cores are not usable; the message names the remedy.
            ServiceError: the bundle is in S3 and S3 does not answer.
        """
        streams, threads = _streams_and_threads(settings)
        sys.setswitchinterval(_SWITCH_SECONDS)
        keep_memory()
        with ExitStack() as stack:
            in_flight = streams + 1 + settings.worker.images_ahead
            store = stack.enter_context(ObjectStore(settings.s3, connections=2 * in_flight))
            connection = stack.enter_context(
                RedisConnection(settings.redis, retries=_REDIS_RETRIES, client_name="maskmill-ledger", patient=True)
            )
            loaded = _load_network(settings, store, stack, channel)
            pipeline = Pipeline(
                store,
                loaded.network,
                loaded.bundle.variant.digest,
                settings.limits,
                in_flight=in_flight,
                memory=PictureMemory(settings.limits.picture_memory_mib),
                observe=metrics.stage,
                working=metrics.working,
            )
            stack.callback(pipeline.close)
            acceptance = Acceptance(store, channel, name)
            stack.callback(acceptance.close)
            acceptance.probe()
            ledger = ChunkLedger(connection, silence_seconds=settings.engine.silence_seconds)
            prefetcher = Prefetcher(ledger, pipeline, channel)
            stack.callback(prefetcher.close)
            traces = tracing.start("maskmill-worker", name)
            stack.callback(traces.close)
            fleet, facts = Fleet(connection), _worker_facts(name, loaded, streams, threads)
            fleet.register(facts)
            _set_metrics(name, loaded)
            runner = ChunkRunner(
                ledger,
                pipeline,
                _identity(name, loaded, len(facts.cpus)),
                channel,
                nearly_done=prefetcher.request_next,
                tracing=traces,
                refused=acceptance.refused,
                report=lambda seconds: fleet.register(facts.model_copy(update={"seconds_per_image": seconds})),
            )
            return cls(runner, stack.pop_all())

    def close(self) -> None:
        """Close all resources, the last opened first."""
        self._resources.close()


def _streams_and_threads(settings: Settings) -> tuple[int, int]:
    streams, threads = settings.plan.streams, settings.plan.threads
    if streams is None or threads is None:
        raise PlacementError(
            "a worker process requires MASKMILL_PLAN__STREAMS and MASKMILL_PLAN__THREADS: start it with "
            "`worker start`, which sets them"
        )
    return streams, threads


def _load_network(settings: Settings, store: ObjectStore, stack: ExitStack, channel: ParentChannel) -> _Loaded:
    advice, (streams, threads) = recommendation(), _streams_and_threads(settings)
    bundle = find_bundle(settings, store, advice)
    channel.set_loading(compiling=True)
    engine = stack.enter_context(load_engine(settings, bundle, advice, streams=streams, threads=threads))
    warm_seconds = engine.warm_up()
    facts = engine.describe()
    log.info(
        "ready for images",
        extra=event(
            "model_loaded",
            model=facts["model"],
            size=facts["size"],
            precision_requested=settings.model.precision,
            precision=facts["precision"],
            inference_precision_requested=facts["inference_precision_requested"],
            inference_precision=facts["inference_precision"],
            streams=streams,
            threads=threads,
            load_seconds=round(float(facts["load_seconds"]), 2),
            warm_up_seconds=round(warm_seconds, 2),
            from_cache=facts["loaded_from_cache"],
            deformable_convolution=facts["deformable_convolution"],
            layer_norm=facts["layer_norm"],
            window_attention=facts["window_attention"],
            kernels=facts["execution_types"],
        ),
    )
    return _Loaded(engine, bundle, facts, float(facts["load_seconds"]) + warm_seconds)


def _worker_facts(name: str, loaded: _Loaded, streams: int, threads: int) -> WorkerFacts:
    variant = loaded.bundle.variant
    return WorkerFacts(
        name=name,
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        streams=streams,
        threads=threads,
        model=str(loaded.facts["model"]),
        size=variant.size,
        precision=f"{variant.precision}/{loaded.inference_precision}",
        digest=variant.digest,
    )


def _identity(name: str, loaded: _Loaded, cores: int) -> Identity:
    variant = loaded.bundle.variant
    return Identity(name, f"{variant.label} {variant.digest[:12]} {loaded.inference_precision}", cores)


def _set_metrics(name: str, loaded: _Loaded) -> None:
    variant, kernels = loaded.bundle.variant, ",".join(sorted(loaded.facts["execution_types"]))
    metrics.MODEL_LOAD.labels(name).set(loaded.seconds)
    model = str(loaded.facts["model"])
    metrics.MODEL_INFO.labels(
        name, model, variant.size.short, variant.precision, loaded.inference_precision, kernels
    ).set(1)
