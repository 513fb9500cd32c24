"""The Celery app of a worker process. `worker.app`, which Celery is given, imports it from here.

The parent process never touches OpenVINO: its threads and its list of processors would not survive the fork. The
child opens everything (model, S3, Redis) in `worker_process_init` and closes it at its end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from typing import Any

import celery.apps.worker
from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown, worker_shutting_down

from worker.consumer.heartbeat import Presence
from worker.consumer.lease import LeaseRenewal
from worker.consumer.prefetch import Credit
from worker.consumer.watchdog import ChunkRequest, Watchdog, end_children_after
from worker.contract import redis_keys, settings
from worker.contract.errors import MaskmillError
from worker.contract.log_fields import event
from worker.contract.queue.admission import Transport
from worker.contract.queue.celery_app import make_celery
from worker.runner.parent_channel import SharedState
from worker.runner.process import Child
from worker.telemetry import logs, metrics

log = logging.getLogger(__name__)


def build() -> Celery:
    """The app with its one task, its bootstep and the life cycle of its child."""
    # Celery warns of root because of pickle; here nothing but JSON is read.
    warnings.filterwarnings("ignore", r"\s*You're running the worker with superuser privileges")
    config = settings.load()
    name = f"{config.worker.process_name}@{config.worker.node_name}"
    app = make_celery(config, client_name=f"maskmill-{name}")
    app.maskmill_name, app.maskmill_shared = name, SharedState()
    shared = app.maskmill_shared
    app.steps["consumer"].update({Credit, LeaseRenewal, Presence, Watchdog})
    child: list[Child] = []

    def configure_logging(**_: Any) -> None:
        logs.configure(config.worker, config.worker.process_name)

    def note_stop(**_: Any) -> None:
        shared.stop()
        end_children_after(config.worker.grace_seconds)

    def open_child(**_: Any) -> None:
        try:
            child.append(Child.open(config, name, shared))
        except MaskmillError as error:
            # Celery would swallow this and hand the child work it cannot do: end the worker, its supervisor reports.
            log.error(error, extra=event("start_failed", code=error.code))
            os.kill(os.getppid(), signal.SIGTERM)
            raise SystemExit(1) from error

    def close_child(**_: Any) -> None:
        while child:
            child.pop().close()

    if config.worker.log_format == "json":
        # Celery writes a line of plain text past all logging when it is told to stop, which the supervisor logs anyway.
        celery.apps.worker.safe_say = lambda msg, f=None: None
    setup_logging.connect(configure_logging, weak=False)
    worker_shutting_down.connect(note_stop, weak=False)
    worker_process_init.connect(open_child, weak=False)
    worker_process_shutdown.connect(close_child, weak=False)

    def run_chunk(message: Any) -> dict[str, Any]:
        return child[0].chunks.run(message)

    Transport.on_refused = staticmethod(metrics.refused)
    app.task(name=redis_keys.TASK_CHUNK, shared=False, Request=ChunkRequest)(run_chunk)
    return app


try:
    app = build()
except MaskmillError as error:
    sys.exit(f"error ({error.code}): {error}")
