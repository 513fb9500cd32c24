"""What a worker's child process holds: network, S3 and Redis, opened once after the fork and closed together."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack

from worker.contract import tracing
from worker.contract.errors import PlacementError
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.model.loading import find_bundle, load_engine, recommendation
from worker.runner.chunks import ChunkRunner, Identity
from worker.runner.parent_channel import SharedState
from worker.runner.pipeline import Pipeline
from worker.runner.prefetch import Lookahead
from worker.telemetry import metrics

log = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""After which a thread in pure Python lets another in. The image threads need the interpreter for a moment between two
long calls that do without it; at Python's 5 ms they queue behind one that talks to S3, and a core has nothing to do
(2 % of the cores' time with a network that does 40 images/s)."""


class Child:
    """Open it in the process that will run chunks, never before a fork."""

    def __init__(self, chunks: ChunkRunner, resources: ExitStack) -> None:
        """Not for callers: use `open`."""
        self.chunks = chunks
        self._resources = resources

    @classmethod
    def open(cls, settings: Settings, name: str, shared: SharedState) -> Child:
        """Load the network onto this process's cores and connect.

        Args:
            settings: with `plan.streams` and `plan.threads` set, as the supervisor does.
            name: of the worker process, unique in the fleet.
            shared: with the parent: whether to end, and that work gets on.

        Raises:
            SetupError: bundle or cores are not as they should be; says what to do.
            ServiceError: the bundle is in S3, and S3 does not answer.
        """
        streams, threads = settings.plan.streams, settings.plan.threads
        if streams is None or threads is None:
            raise PlacementError(
                "a worker process needs MASKMILL_PLAN__STREAMS and MASKMILL_PLAN__THREADS: start it with "
                "`worker start`, which sets them"
            )
        sys.setswitchinterval(_SWITCH_SECONDS)
        with ExitStack() as stack:
            in_flight = streams + 1 + settings.worker.images_ahead
            store = stack.enter_context(ObjectStore(settings.s3, connections=2 * in_flight))
            silence = settings.engine.silence_seconds
            ledger = stack.enter_context(Ledger(settings.redis, retries=12, silence_seconds=silence))
            advice = recommendation()
            bundle = find_bundle(settings, store, advice)
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
                    kernels=facts["execution_types"],
                ),
            )
            pipeline = Pipeline(
                store,
                engine,
                bundle.variant.digest,
                settings.limits,
                in_flight=in_flight,
                observe=metrics.stage,
                working=metrics.working,
            )
            stack.callback(pipeline.close)
            lookahead = Lookahead(ledger, pipeline, shared)
            stack.callback(lookahead.close)
            traces = tracing.start("maskmill-worker", name)
            stack.callback(traces.close)
            fleet = Fleet(ledger.link)
            known = WorkerFacts(
                name=name,
                cpus=tuple(sorted(os.sched_getaffinity(0))),
                streams=streams,
                threads=threads,
                model=str(facts["model"]),
                size=bundle.variant.size,
                precision=f"{bundle.variant.precision}/{facts['inference_precision']}",
                digest=bundle.variant.digest,
            )
            fleet.enrol(known)
            load_seconds = float(facts["load_seconds"]) + warm_seconds
            metrics.MODEL_LOAD.labels(name).set(load_seconds)
            kinds = ",".join(sorted(facts["execution_types"]))
            what = (name, known.model, known.size.short, bundle.variant.precision, str(facts["inference_precision"]))
            metrics.MODEL_INFO.labels(*what, kinds).set(1)
            model = f"{bundle.variant.label} {bundle.variant.digest[:12]} {facts['inference_precision']}"
            runner = ChunkRunner(
                ledger,
                pipeline,
                Identity(name, model, len(known.cpus)),
                shared,
                nearly_done=lookahead.ask,
                tracing=traces,
                report=lambda seconds: fleet.enrol(known.model_copy(update={"seconds_per_image": seconds})),
            )
            return cls(runner, stack.pop_all())

    def close(self) -> None:
        """Free everything, last opened first."""
        self._resources.close()
