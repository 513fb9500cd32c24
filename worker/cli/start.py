"""`worker start`: run the workers of this node under a supervisor."""

from __future__ import annotations

import logging

import click

from worker.cli.network import prepare
from worker.contract import settings
from worker.contract.console import Exit
from worker.contract.errors import BrokerUnavailable, MaskmillError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.start_failure import report_failure
from worker.contract.log_fields import event
from worker.contract.settings import RedisSettings, Settings
from worker.cpu import placement, topology
from worker.node import tuned_plan
from worker.node.supervisor import Supervisor
from worker.telemetry import logs

log = logging.getLogger(__name__)


@click.command("start")
def start_command() -> int:
    """Run one pinned worker process per core set.

    `worker plan` shows the processes that this command starts; `worker check` tests whether they can start. They run
    until SIGTERM or Ctrl-C: the images in flight are then finished and all others return to the queue. A second signal
    kills the processes at once. While Redis cannot be reached, the command waits for it. It is an error if Redis
    refuses the credentials, or if its configuration could lose work.

    A network that the settings name (`worker model list --known`) is fetched and imported first, if that was not done
    on this machine. If the default one cannot be fetched, a small built-in network takes its place.
    """
    config = settings.load()
    logs.configure(config.worker, "supervisor")
    refuse_unfit(config.redis)
    try:
        supervisor = prepare_node(config)
    except MaskmillError as error:
        report_failure(config.redis, config.worker.node_name, error)
        raise
    supervisor.run()
    return Exit.OK


def prepare_node(config: Settings) -> Supervisor:
    """Choose the network and the core sets, and return the supervisor of their processes.

    Raises:
        MaskmillError: the node cannot run workers; the message names the remedy.
    """
    config, network = prepare(config, lambda what: log.info(what, extra=event("network_preparing")))
    if network.is_fallback:
        log.warning(network.why, extra=event("network_resolved"))
    elif network.why:
        log.info(network.why, extra=event("network_resolved"))
    machine = topology.read()
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    log.info(tuned.why, extra=event("core_plan"))
    return Supervisor(config, placement.plan(machine, tuned.plan, set_by=tuned.set_by), model=tuned.model)


def refuse_unfit(redis: RedisSettings) -> None:
    """Check Redis once before starting any process: Celery would retry for ever and report it only in a worker's log.

    If Redis cannot be reached, this logs a warning and returns; Celery then waits for Redis.

    Raises:
        AccessDenied, SetupError: as in `RedisConnection.check`.
    """
    with RedisConnection(redis, retries=0, client_name="maskmill-start") as connection:
        try:
            connection.check()
        except BrokerUnavailable as error:
            log.warning(error, extra=event("redis_waiting"))
