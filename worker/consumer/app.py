"""The Celery app of a worker process; `worker.app`, the module that Celery is started with, imports it from here.

The parent process never loads OpenVINO, whose threads and list of processors would not survive the fork. The model
process opens everything (model, S3, Redis) on the signal `worker_process_init` and closes it on
`worker_process_shutdown`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import celery.apps.worker
from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown, worker_shutting_down
from celery.utils.log import worker_logger

from worker.consumer.acceptance import Acceptance
from worker.consumer.heartbeat import Heartbeat
from worker.consumer.lease import LeaseRenewal
from worker.consumer.prefetch import Prefetch
from worker.consumer.watchdog import ChunkRequest, Watchdog, kill_model_process_after, without_traceback
from worker.contract import redis_keys, settings
from worker.contract.errors import MaskmillError
from worker.contract.ledger.start_failure import report_failure
from worker.contract.log_fields import event
from worker.contract.queue.admission import Transport
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import Settings
from worker.runner.parent_channel import ParentChannel
from worker.runner.process import ModelProcess
from worker.telemetry import logs, metrics

log = logging.getLogger(__name__)


def build() -> Celery:
    """Return the app with its one task, its bootsteps, and the life cycle of its model process."""
    # Celery warns about root because of pickle, which is never read here: all messages are JSON.
    warnings.filterwarnings("ignore", r"\s*You're running the worker with superuser privileges")
    config = settings.load()
    name = f"{config.worker.process_name}@{config.worker.node_name}"
    app = make_celery(config, client_name=f"maskmill-{name}")
    app.maskmill_name, app.maskmill_parent_channel = name, ParentChannel()
    app.maskmill_parent_channel.set_loading()
    app.steps["consumer"].update({Prefetch, LeaseRenewal, Heartbeat, Watchdog, Acceptance})
    _connect_parent(config, app.maskmill_parent_channel)
    run_chunk = _connect_model_process(config, name, app.maskmill_parent_channel)
    Transport.on_refused = staticmethod(metrics.refused)
    app.task(name=redis_keys.TASK_CHUNK, shared=False, Request=ChunkRequest)(run_chunk)
    return app


def _connect_parent(config: Settings, channel: ParentChannel) -> None:
    """Connect the parent to Celery's signals: logging, and what happens when the worker stops."""

    def configure_logging(**_: Any) -> None:
        logs.configure(config.worker, config.worker.process_name)
        worker_logger.addFilter(without_traceback)

    def stop(**_: Any) -> None:
        channel.stop()
        kill_model_process_after(config.worker.grace_seconds)

    if config.worker.log_format == "json":
        # On a stop, Celery writes a line of plain text that bypasses logging; the supervisor logs the stop anyway.
        celery.apps.worker.safe_say = lambda msg, f=None: None
    setup_logging.connect(configure_logging, weak=False)
    worker_shutting_down.connect(stop, weak=False)


def _connect_model_process(config: Settings, name: str, channel: ParentChannel) -> Callable[[Any], dict[str, Any]]:
    """Open and close the model process with the pool's process, and return the task that runs in it."""
    opened: list[ModelProcess] = []

    def open_model_process(**_: Any) -> None:
        channel.set_loading()
        try:
            opened.append(ModelProcess.open(config, name, channel))
        except MaskmillError as error:
            # Celery would ignore this and hand over chunks that cannot run: stop the worker; its supervisor reports it.
            log.error(error, extra=event("start_failed", code=error.code))
            report_failure(config.redis, name, error)
            os.kill(os.getppid(), signal.SIGTERM)
            raise SystemExit(1) from error
        channel.set_loaded()

    def close_model_process(**_: Any) -> None:
        while opened:
            opened.pop().close()

    def run_chunk(message: Any) -> dict[str, Any]:
        return opened[0].chunks.run(message)

    worker_process_init.connect(open_model_process, weak=False)
    worker_process_shutdown.connect(close_model_process, weak=False)
    return run_chunk


try:
    app = build()
except MaskmillError as error:
    sys.exit(f"error ({error.code}): {error}")
