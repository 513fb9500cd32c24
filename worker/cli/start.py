"""`worker start`."""

from __future__ import annotations

import logging

import click

from worker.contract import settings
from worker.contract.console import Exit
from worker.contract.errors import BrokerUnavailable
from worker.contract.ledger.connection import RedisConnection
from worker.contract.settings import RedisSettings
from worker.cpu import placement, topology
from worker.node import tuned_plan
from worker.node.supervisor import Supervisor
from worker.telemetry import logs

log = logging.getLogger("worker.start")


@click.command("start")
def start_command() -> int:
    """Run one pinned worker process per core set until SIGTERM or Ctrl-C.

    `worker plan` shows what will be started, `worker check` whether it can be. On SIGTERM images in work are finished
    and the rest is handed back to the queue; a second signal kills at once. A Redis that is not there yet is waited
    for; one that refuses us, or on which work would get lost, is an error.
    """
    config = settings.load()
    logs.configure(config.worker, "supervisor")
    refuse_unfit(config.redis)
    machine = topology.read()
    tuned = tuned_plan.planned(machine, config.plan, config.model)
    log.info("event=plan %s", tuned.why)
    Supervisor(config, placement.plan(machine, tuned.plan, set_by=tuned.set_by), model=tuned.model).run()
    return Exit.OK


def refuse_unfit(redis: RedisSettings) -> None:
    """Ask once before anything is started: Celery would try for ever, and say so in the log of a worker only.

    Raises:
        AccessDenied, SetupError: as in `RedisConnection.check`.
    """
    with RedisConnection(redis, retries=0, client_name="maskmill-start") as connection:
        try:
            connection.check()
        except BrokerUnavailable as error:
            log.warning("event=redis_awaited %s", error)
