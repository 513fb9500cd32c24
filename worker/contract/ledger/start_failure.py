"""Tell the fleet why a node cannot start, so that producers who wait for it can say so."""

from __future__ import annotations

import logging

from worker.contract.errors import MaskmillError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.fleet import Fleet
from worker.contract.log_fields import event
from worker.contract.settings import RedisSettings

log = logging.getLogger(__name__)


def report_failure(redis: RedisSettings, worker: str, error: MaskmillError) -> None:
    """Record the error of a worker process or node that cannot start; a failure to do so is only logged."""
    try:
        with RedisConnection(redis, retries=0, client_name="maskmill-start") as connection:
            Fleet(connection).report_failure(worker, f"{error} ({error.code})")
    except MaskmillError as failure:
        log.warning(failure, extra=event("start_failure_unreported"))
