"""`worker start`."""

from __future__ import annotations

import logging

import click

from worker import logs
from worker.contract import settings
from worker.contract.console import Exit
from worker.cpu import placement, topology
from worker.supervisor import Supervisor
from worker.tuning import record

log = logging.getLogger("worker.start")


@click.command("start")
def start_command() -> int:
    """Run one pinned worker process per core set until SIGTERM or Ctrl-C.

    `worker plan` shows what will be started, `worker check` whether it can be. On SIGTERM images in work are finished
    and the rest is handed back to the queue; a second signal kills at once.
    """
    config = settings.load()
    logs.configure(config.worker.log_level, "supervisor")
    machine = topology.read()
    tuned = record.planned(machine, config.plan, config.model)
    log.info("event=plan %s", tuned.why)
    Supervisor(config, placement.plan(machine, tuned.plan, set_by=tuned.set_by), model=tuned.model).run()
    return Exit.OK
