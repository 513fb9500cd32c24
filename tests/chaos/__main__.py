"""`python -m chaos --minutes 30`; see the package."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psutil

from chaos import account, faults, report
from chaos.inject import Injector
from chaos.load import Load, make_sources
from chaos.nodes import Node
from chaos.s3_log import S3Log
from chaos.watch import Watch
from support.stack import Installation, make_bucket, new_installation
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

NODES, PROCESSES = 2, 2

SETTINGS = {
    # Shorter than in production, so that lost work comes back while the run lasts.
    "MASKMILL_ENGINE__LEASE_SECONDS": "10",
    "MASKMILL_ENGINE__SILENCE_SECONDS": "8",
    "MASKMILL_ENGINE__RECONCILE_SECONDS": "2",
    "MASKMILL_ENGINE__LEADER_SECONDS": "5",
    "MASKMILL_ENGINE__FEED_SECONDS": "0.25",
    "MASKMILL_WORKER__IMAGE_TIME_LIMIT_SECONDS": "20",
    "MASKMILL_WORKER__GRACE_SECONDS": "15",
    "MASKMILL_JOBS__CHUNK_IMAGES": "8",
    "MASKMILL_PLAN__PROCESSES": str(PROCESSES),
    "MASKMILL_PLAN__STREAMS": "1",
    "MASKMILL_PLAN__THREADS": "1",
    # A supervisor gives up a process that ends again and again; here that is the point.
    "MASKMILL_WORKER__RESTART_LIMIT": "1000",
}

_NO_RECONCILER = {"MASKMILL_ENGINE__RECONCILE_SECONDS": "100000"}
_DRAIN_SECONDS, _STUCK_SECONDS = 600.0, 90.0
_QUIET_SECONDS = 15.0


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(0.2), default=3.0, show_default=True, help="Of faults; then all jobs end."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same plan of faults.")
@click.option("--per-minute", type=click.FloatRange(0.5, 20), default=7.0, show_default=True, help="Faults.")
@click.option(
    "--reconciler", type=click.Choice(["on", "off"]), default="on", show_default=True, help="Off: the control."
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("chaos"), show_default=True)
def main(*, minutes: float, seed: int, per_minute: float, reconciler: str, output: Path) -> None:
    """Run workers under faults and account for every image; exit status 1 if anything is wrong."""
    for name in [name for name in os.environ if name.startswith(("MASKMILL_", "AWS_"))]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # all that was started is to end with this
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC)
    with ExitStack() as stack:
        services = stack.enter_context(Standalone(output / "services"))
        s3_log = stack.enter_context(S3Log(services.s3_endpoint))
        installation = _place(services, s3_log, output, reconciler)
        store = stack.enter_context(ObjectStore(installation.settings.s3))
        ledger = stack.enter_context(Ledger(installation.settings.redis, retries=12))
        make_sources(store, installation.bucket)
        nodes = [
            Node(f"node-{letter}", installation.environment, output / f"node-{letter}.log") for letter in "ab"[:NODES]
        ]
        watch = Watch(installation.settings.redis, lambda: _processes(nodes, services))
        load = Load(installation, ledger, watch.left, seed)
        for node in nodes:
            node.log.unlink(missing_ok=True)
            node.start()
            stack.callback(node.stop, 20.0)
        watch.start()
        load.start()
        _wait_for_work(watch)
        began = time.monotonic()
        injector = Injector(nodes, services, watch, began)
        for number, fault in enumerate(faults.plan(seed, minutes, per_minute), start=1):
            injector.inject(fault)
            if number % 10 == 0:
                click.echo(
                    f"{fault.at:6.0f} s  {len(injector.done)} faults, {len(load.jobs)} jobs, {watch.last.done} images"
                )
        injector.settle()
        load.stop()
        _drain(watch, injector)
        seconds = time.monotonic() - began
        watch.stop()
        found = account.audit(ledger, store, s3_log, load.jobs, installation.bucket)
    kills = sum(one.kills for one in injector.done)
    facts: dict[str, Any] = {
        "schema_version": 1,
        "started": started.isoformat(timespec="seconds"),
        "minutes": minutes,
        "seed": seed,
        "reconciler": reconciler,
        "seconds": round(seconds, 1),
        "cluster": f"{NODES} nodes of {PROCESSES} worker processes on one machine of {os.cpu_count()} CPUs, "
        "Valkey and SeaweedFS beside them.",
        "settings": SETTINGS | (_NO_RECONCILER if reconciler == "off" else {}),
        "weights": faults.WEIGHTS,
        "kills": kills,
        "faults": len(injector.done),
        "without_victim": injector.idle,
        "recoveries": report.recoveries(injector.done),
        "longest": watch.longest,
        "flat": report.flat(watch.gauges),
        "log": report.logged([node.log for node in nodes]),
        "account": found.facts(),
        "done": [one.facts() for one in injector.done],
        "gauges": watch.gauges,
    }
    for path in report.write(output, facts):
        click.echo(f"written: {path}")
    for problem in found.wrong:
        click.echo(f"wrong: {problem}", err=True)
    click.echo(f"{kills} kills, {found.submitted} images in {len(load.jobs)} jobs, {found.lost} lost")
    sys.exit(1 if found.wrong else 0)


def _place(services: Standalone, s3_log: S3Log, output: Path, reconciler: str) -> Installation:
    fresh = new_installation(services)
    make_bucket(fresh)
    cache = {"MASKMILL_MODEL__CACHE_DIR": str(output / "cache")}
    control = _NO_RECONCILER if reconciler == "off" else {}
    environment = fresh.environment | SETTINGS | cache | control | {"MASKMILL_S3__ENDPOINT_URL": s3_log.endpoint}
    return Installation(environment, fresh.settings, fresh.bucket)


def _processes(nodes: Sequence[Node], services: Standalone) -> dict[str, list[psutil.Process]]:
    found = {
        "supervisor": [process for node in nodes for process in node.supervisor()],
        "parent": [process for node in nodes for _, process in node.parents()],
        "child": [process for node in nodes for _, process in node.children()],
        "steward": [process for node in nodes for process in node.stewards()],
    }
    return found | {name: [psutil.Process(pid)] for name, pid in services.pids.items() if psutil.pid_exists(pid)}


def _wait_for_work(watch: Watch) -> None:
    """Until the first images are done: faults during the first start are another matter."""
    until = time.monotonic() + 120
    while watch.last.done == 0:
        if time.monotonic() > until:
            sys.exit("no image was done within two minutes; the logs of the nodes say why")
        time.sleep(0.2)


def _drain(watch: Watch, injector: Injector) -> None:
    """Until all jobs have ended, or nothing has moved for so long that nothing will."""
    until, moved, left = time.monotonic() + _DRAIN_SECONDS, time.monotonic(), -1
    while time.monotonic() < until:
        injector.tend()
        now = watch.look()
        if now.left != left:
            moved, left = time.monotonic(), now.left
        if left == 0 and not now.outstanding and time.monotonic() - moved > _QUIET_SECONDS:
            return
        if time.monotonic() - moved > _STUCK_SECONDS:
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main()
