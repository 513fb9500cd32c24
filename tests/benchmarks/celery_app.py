"""The app of `celery_failover`: plain Celery on a Redis behind Sentinels, set up as its documentation advises.

Each task notes its start and its end in the file TASKS_FILE, one line each, so that the count depends on nothing that
the run kills.
"""

from __future__ import annotations

import os
import time

from celery import Celery

from worker.bench.plain_celery import QUEUE, plain_broker
from worker.contract import settings

TASK_SECONDS = 0.05

_url, _options = plain_broker(settings.load().redis)
app = Celery("peer", broker=_url, set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # or a primary that becomes a replica ends the worker
    broker_transport_options=_options
    | {
        "visibility_timeout": int(os.environ["VISIBILITY_SECONDS"]),
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
)


@app.task(name="peer.work")
def work(number: int) -> None:
    """Take as long as a small image, and note that it was done."""
    _note("start", number)
    time.sleep(TASK_SECONDS)
    _note("done", number)


def _note(what: str, number: int) -> None:
    file = os.open(os.environ["TASKS_FILE"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, f"{what} {number} {os.getpid()} {time.time():.3f}\n".encode())
    finally:
        os.close(file)
