"""The command `python -m chaos.upgrade --from COMMIT`: a rolling upgrade and a rollback under load.

    old old -> new old -> new new -> old new -> old old     each arrow: one node drains, and starts with the other code

Producers of both versions submit jobs in turns all the time. In the end every image is accounted for.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from chaos import account, report
from chaos.__main__ import SETTINGS, drain, wait_for_work
from chaos.cluster import cluster
from chaos.load import Load, Sources
from chaos.nodes import Node
from chaos.watch import Watch
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore

_ROOT = Path(__file__).resolve().parents[2]
_STEPS = ((0, "new"), (1, "new"), (0, "old"), (1, "old"))
"""Node and the code that it starts next."""
_STEP_SECONDS = 240.0
_REFUSED = ("message_refused", "start_failed", "image_dead")
"""Log events of one version that does not understand the other."""


@click.command()
@click.option("--from", "commit", required=True, metavar="COMMIT", help="The older version.")
@click.option(
    "--images", type=click.IntRange(1), default=150, show_default=True, help="Images done between two steps, at least."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the jobs.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("upgrade"), show_default=True)
def main(*, commit: str, images: int, seed: int, output: Path) -> None:
    """Upgrade two nodes one by one during jobs, then roll back. Exit code 1 if an image is lost or refused."""
    for name in [name for name in os.environ if name.startswith(("MASKMILL_", "AWS_"))]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    old = _unpacked(commit, output / "old")
    run = _run(_Request(old, images, seed, output))
    for problem in run.wrong:
        click.echo(f"wrong: {problem}", err=True)
    click.echo(
        f"{len(_STEPS)} steps, {run.found.submitted} images in {run.jobs} jobs, {run.found.lost} lost, "
        f"{run.found.fetched_again} read again, {run.seconds:.0f} s"
    )
    sys.exit(1 if run.wrong else 0)


@dataclass(frozen=True)
class _Request:
    old: Path
    images: int
    seed: int
    output: Path


@dataclass(frozen=True)
class _Run:
    found: account.Account
    wrong: Sequence[str]
    jobs: int
    seconds: float


def _unpacked(commit: str, folder: Path) -> Path:
    """Unpack the package of a commit."""
    done = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", "--format=tar", commit, "worker", "producer"],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"git cannot read {commit}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _run(request: _Request) -> _Run:
    with ExitStack() as stack:
        services = stack.enter_context(
            cluster(request.output, "single", ["node-a", "node-b"], SETTINGS, seed=request.seed)
        )
        installation = services.installation
        store = stack.enter_context(ObjectStore(installation.settings.s3))
        ledger = stack.enter_context(Ledger(installation.settings.redis, retries=12))
        nodes = [
            Node(f"node-{letter}", installation.environment, request.output / f"node-{letter}.log", request.old)
            for letter in "ab"
        ]
        watch = Watch(installation.settings.redis, dict)
        load = Load(installation, Sources(store), ledger, watch.left, seed=request.seed, codes=(request.old, None))
        for node in nodes:
            node.log.unlink(missing_ok=True)
            node.start()
            stack.callback(node.stop, 20.0)
        watch.start()
        load.start()
        began = time.monotonic()
        wait_for_work(watch)
        _roll(request, nodes, watch)
        load.stop()
        drain(watch)
        seconds = time.monotonic() - began
        watch.stop()
        found = account.audit(ledger, store, services.s3_log, load.jobs)
    logged = report.logged([node.log for node in nodes])
    refused = {name: count for name, count in logged["events"].items() if name in _REFUSED}
    wrong = [*found.wrong, *(f"{count} x {name} in the logs" for name, count in refused.items())]
    return _Run(found, wrong, len(load.jobs), seconds)


def _roll(request: _Request, nodes: Sequence[Node], watch: Watch) -> None:
    """Give each node the other code in turn, and let images end before, between and after the steps."""
    _wait_for_images(request, watch)
    for number, code in _STEPS:
        node = nodes[number]
        node.stop(60.0)
        node.code = None if code == "new" else request.old
        node.start()
        _wait_for_images(request, watch)
        click.echo(f"{node.name} runs the {code} code, {watch.last.done} images are done")


def _wait_for_images(request: _Request, watch: Watch) -> None:
    goal, until = watch.last.done + request.images, time.monotonic() + _STEP_SECONDS
    while watch.last.done < goal:
        if time.monotonic() > until:
            sys.exit(f"{request.images} images did not end within {_STEP_SECONDS:g} s; see {request.output}/node-a.log")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
