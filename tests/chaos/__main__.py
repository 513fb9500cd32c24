"""The command `python -m chaos --minutes 30`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from chaos import account, faults, report
from chaos.cluster import RedisKind, cluster
from chaos.controls import CONTROLS
from chaos.inject import Injector
from chaos.load import BACKLOG_IMAGES, SETS, USUAL_SIZES, Load, Sources
from chaos.nodes import Node
from chaos.watch import Watch
from support.clocks import SteppedClock
from support.fault_injection import Faults
from support.netns import HostNetwork
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import WorkerSettings
from worker.contract.storage.s3 import ObjectStore

PROCESSES = 2
IN_FLIGHT = 1 + 1 + WorkerSettings().images_ahead
"""Images in flight in a model process of one stream."""

SETTINGS = {
    # Shorter than in production, so that lost work returns during the run.
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
    # The supervisor gives up a process that ends too often. Here processes are killed on purpose.
    "MASKMILL_WORKER__RESTART_LIMIT": "1000",
}

_DRAIN_SECONDS, _STUCK_SECONDS = 600.0, 90.0
_CONTROL_STUCK_SECONDS = 45.0
_QUIET_SECONDS = 15.0
_ENDING_SECONDS = 40.0
"""No job is submitted in the last seconds of the faults, so that the drain is short."""


_MORE_SAFEGUARDS = ("change", "watch", "renewal")
"""Without them, work returns later; nothing is lost."""


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0.2),
    default=3.0,
    show_default=True,
    help="Time from the start to the last fault. All jobs end within a minute after it.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the plan of faults.")
@click.option(
    "--per-minute", type=click.FloatRange(0.5, 40), default=26.0, show_default=True, help="Average number of faults."
)
@click.option(
    "--off",
    type=click.Choice([*_MORE_SAFEGUARDS, *CONTROLS]),
    help="A control run without this safeguard (see `chaos.controls` and `support.fault_injection.Faults`).",
)
@click.option(
    "--control",
    type=click.Choice(list(CONTROLS)),
    help="Only the faults that this safeguard is for; sets --redis, --minutes and --per-minute.",
)
@click.option(
    "--redis",
    type=click.Choice(["single", "sentinels"]),
    default="sentinels",
    show_default=True,
    help="One server that restarts, or a primary with a replica and three Sentinels that fails over.",
)
@click.option(
    "--job-images",
    type=click.Choice([str(size) for size in SETS]),
    multiple=True,
    default=[str(size) for size in USUAL_SIZES],
    show_default=True,
    help="Images of a job; drawn for each job if given more than once.",
)
@click.option("--nodes", type=click.IntRange(2, 4), default=2, show_default=True, help="Nodes.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("chaos"), show_default=True)
def main(*, output: Path, **options: Any) -> None:
    """Run workers under faults and account for every image. Exit code 1 if anything is wrong."""
    for name in [name for name in os.environ if name.startswith(("MASKMILL_", "AWS_"))]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops all started processes too
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    if options["control"] is not None:
        chosen = CONTROLS[options["control"]]
        options |= {"redis": chosen.redis, "minutes": chosen.minutes, "per_minute": chosen.per_minute}
    request = _Request(output=output, **options)
    for kind, why in request.left_out.items():
        click.echo(f"left out: {kind}: {why}")
    started = datetime.now(UTC)
    run = _run(request)
    for path in report.write(output, _facts(request, started, run)):
        click.echo(f"written: {path}")
    found = run.found
    for problem in found.wrong:
        click.echo(f"wrong: {problem}", err=True)
    click.echo(f"{run.kills} kills, {found.submitted} images in {len(run.load.jobs)} jobs, {found.lost} lost")
    sys.exit(1 if found.wrong else 0)


@dataclass(frozen=True)
class _Request:
    minutes: float
    seed: int
    per_minute: float
    off: str | None
    output: Path
    redis: RedisKind
    nodes: int
    job_images: tuple[str, ...]
    control: str | None

    @property
    def kinds(self) -> Mapping[str, int]:
        if self.control is not None:
            return CONTROLS[self.control].kinds
        return faults.weights(sentinels=self.redis == "sentinels")

    @property
    def sizes(self) -> Sequence[int]:
        return tuple(map(int, self.job_images)) if self.control is None else CONTROLS[self.control].sizes

    @property
    def backlog(self) -> int:
        return BACKLOG_IMAGES if self.control is None else CONTROLS[self.control].backlog

    @property
    def left_out(self) -> dict[str, str]:
        """Kinds of faults that this machine cannot have, and why. The plan is the same without them."""
        found = {}
        if "clock-redis" in self.kinds and SteppedClock.library() is None:
            found["clock-redis"] = "libfaketime is not installed"
        if "network-cut" in self.kinds and (why := HostNetwork.unavailable()):
            found["network-cut"] = why
        return found

    @property
    def injected(self) -> Faults | None:
        """Faults inside the processes of the nodes; None: they run as installed."""
        if self.off is None and self.control is None:
            return None
        return Faults(self.output, off=() if self.off is None else (self.off,), back_off_seconds=30.0)

    @property
    def settings(self) -> dict[str, str]:
        return SETTINGS | ({} if self.injected is None else self.injected.environment())


@dataclass(frozen=True)
class _Run:
    nodes: Sequence[Node]
    load: Load
    watch: Watch
    injector: Injector
    found: account.Account
    seconds: float
    where: str

    @property
    def kills(self) -> int:
        return sum(one.kills for one in self.injector.done)


def _run(request: _Request) -> _Run:
    """Start services, nodes and load, inject the faults, wait for the end of all jobs, and audit them."""
    names = [f"node-{letter}" for letter in "abcd"[: request.nodes]]
    end = time.monotonic() + 60 * request.minutes
    with ExitStack() as stack:
        services = stack.enter_context(
            cluster(
                request.output,
                request.redis,
                names,
                request.settings,
                seed=request.seed,
                wait_replicas=int(request.off != "wait"),
            )
        )
        installation = services.installation
        store = stack.enter_context(ObjectStore(installation.settings.s3))
        ledger = stack.enter_context(Ledger(installation.settings.redis, retries=12))
        nodes = [services.node(name, request.output / f"{name}.log") for name in names]
        watch = Watch(installation.settings.redis, lambda: services.processes(nodes))
        load = Load(
            installation,
            Sources(store),
            ledger,
            watch.left,
            seed=request.seed,
            sizes=request.sizes,
            backlog=request.backlog,
        )
        for node in nodes:
            node.log.unlink(missing_ok=True)
            node.start()
            stack.callback(node.stop, 20.0)
        watch.start()
        load.start()
        wait_for_work(watch)
        began = time.monotonic()
        injector = Injector(nodes, services, watch, began, request.injected)
        # The start is part of the minutes, unless they are few.
        last = max(end - began, 0.8 * 60 * request.minutes)
        _inject(_plan(request, last), last - min(_ENDING_SECONDS, last / 3), injector, load, watch)
        load.stop()
        drain(watch, injector.run_due, _STUCK_SECONDS if request.control is None else _CONTROL_STUCK_SECONDS)
        seconds = time.monotonic() - began
        watch.stop()
        for node in nodes:
            node.begin_to_stop()
        found = account.audit(ledger, store, services.s3_log, load.jobs, injector.done)
        where = "each in a network of its own" if services.network else "on one host"
    return _Run(nodes, load, watch, injector, found, seconds, where)


def _plan(request: _Request, last: float) -> Iterator[faults.Planned]:
    """Yield the faults of the plan that this machine can have, up to `last` seconds."""
    planned = faults.plan(request.seed, request.minutes, request.per_minute, request.kinds)
    left_out = request.left_out
    return (fault for fault in planned if fault.kind not in left_out and fault.at < last)


def _inject(plan: Iterator[faults.Planned], submit_until: float, injector: Injector, load: Load, watch: Watch) -> None:
    """Inject all faults of a plan, and undo them; submit no job after `submit_until` seconds."""
    for number, fault in enumerate(plan, start=1):
        if fault.at > submit_until:
            load.submit_no_more()
        injector.inject(fault)
        if number % 10 == 0:
            counts = f"{len(injector.done)} faults, {len(load.jobs)} jobs, {watch.last.done} images"
            click.echo(f"{fault.at:6.0f} s  {counts}")
    load.submit_no_more()
    injector.settle()


def _facts(request: _Request, started: datetime, run: _Run) -> dict[str, Any]:
    """Return the contents of the report."""
    return {
        "schema_version": 1,
        "started": started.isoformat(timespec="seconds"),
        "minutes": request.minutes,
        "seed": request.seed,
        "off": request.off,
        "control": request.control,
        "seconds": round(run.seconds, 1),
        "cluster": f"{request.nodes} nodes of {PROCESSES} worker processes, {run.where}, with Valkey "
        f"({request.redis}) and SeaweedFS, all on one machine of {os.cpu_count()} CPUs.",
        "settings": request.settings,
        "weights": request.kinds,
        "left_out": request.left_out,
        "kills": run.kills,
        "in_flight": IN_FLIGHT,
        "faults": len(run.injector.done),
        "without_victim": run.injector.idle,
        "recoveries": report.recoveries(run.injector.done),
        "longest": run.watch.longest,
        "flat": report.flat(run.watch.gauges),
        "log": report.logged([node.log for node in run.nodes]),
        "account": run.found.facts(),
        "done": [one.facts() for one in run.injector.done],
        "gauges": run.watch.gauges,
    }


def wait_for_work(watch: Watch) -> None:
    """Wait until the first images are done; faults during the first start are not part of the run."""
    until = time.monotonic() + 120
    while watch.last.done == 0:
        if time.monotonic() > until:
            sys.exit("no image ended within two minutes; see the logs of the nodes")
        time.sleep(0.2)


def drain(watch: Watch, run_due: Callable[[], None] = lambda: None, stuck_seconds: float = _STUCK_SECONDS) -> None:
    """Wait until all jobs have ended, or until there was no progress for a time.

    Args:
        watch: of the run.
        run_due: undoes the faults that are due; called again and again.
        stuck_seconds: this time.
    """
    until, moved, left = time.monotonic() + _DRAIN_SECONDS, time.monotonic(), -1
    while time.monotonic() < until:
        run_due()
        now = watch.snapshot()
        if now.left != left:
            moved, left = time.monotonic(), now.left
        if left == 0 and not now.outstanding and time.monotonic() - moved > _QUIET_SECONDS:
            return
        if time.monotonic() - moved > stuck_seconds:
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main()
