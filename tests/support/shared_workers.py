"""A Redis to mistreat and workers that live through it: for tests of one module, which share both.

    with own_redis(folder) as server, Mistreated.start(...) as under: ...

Starting Python, Celery and a model costs seconds; a fault costs one. So the faults of a module happen to the same
workers, one after the other, and each test says at its end that no process of them had to be started again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import redis

from producer.submit import Submitter
from support import commands
from support.faults import FAST, Account, Faults, Node, picture, settle
from support.stack import Installation, make_bucket, new_installation
from worker.contract import settings
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

PASSWORD = "only-for-this-test"

BACK_OFF = 35.0
"""Celery's pauses between two tries to connect are 2, 4, ... 30 s and do not scale with the engine's clocks."""


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[Valkey]:
    """A Redis that nobody else uses."""
    server = Valkey(
        data=folder / "valkey",
        log=folder / "valkey.log",
        port=ports.choose({"redis": (0,)})["redis"],
        password=PASSWORD,
    )
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.kill()


def installation_at(
    standalone: Standalone, url: str, more: Mapping[str, str], *, password: str = PASSWORD
) -> Installation:
    """A installation in the Redis at `url` and the S3 that all tests share; the engine's clocks run fast."""
    found = new_installation(standalone)
    own = {"MASKMILL_REDIS__URL": url, "MASKMILL_REDIS__PASSWORD": password}
    installation = placed(found, FAST | own | dict(more))
    make_bucket(installation)
    return installation


def placed(installation: Installation, more: Mapping[str, str]) -> Installation:
    """The same installation with other settings."""
    environment = installation.environment | dict(more)
    with mock.patch.dict(os.environ, environment):
        return Installation(environment, settings.load(), installation.bucket)


def client(installation: Installation, **options: Any) -> redis.Redis:
    """A connection of the test's own: whatever happens to the others, this one is told apart by its name."""
    return redis.Redis.from_url(
        installation.settings.redis.secret_url(), decode_responses=True, client_name="the-test", **options
    )


@dataclass
class Mistreated:
    """Workers, what they work on, and how to ask afterwards whether they lived through it."""

    installation: Installation
    faults: Faults
    node: Node
    log: Path
    uploaded: dict[str, int] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, installation: Installation, faults: Faults, log: Path, *, processes: int = 1
    ) -> Iterator[Mistreated]:
        """`worker start` for the length of the block; begins when all processes have loaded their model."""
        more = {"MASKMILL_PLAN__PROCESSES": str(processes)} | faults.environment()
        with commands.workers(installation.environment | more, log) as supervisor:
            node = Node(supervisor.pid)
            commands.wait_for(lambda: log.read_text().count("event=model_loaded") >= processes, "the models", 90)
            yield cls(installation, faults, node, log)

    def job(self, count: int, *, chunk: int, folder: str = "in", policy: JobPolicy | None = None) -> str:
        """Submit so many pictures, from this process, to a destination of their own; the job's id."""
        self.upload(count, folder)
        with connected(self.installation, chunk) as submitter:
            source, dest = (
                f"s3://{self.installation.bucket}/{name}/" for name in (folder, f"out-{secrets.token_hex(4)}")
            )
            return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job

    def upload(self, count: int, folder: str = "in") -> None:
        """Put the pictures of a folder where they are not yet; a folder has the size of its first use."""
        if folder not in self.uploaded:
            upload(self.installation, count, folder)
            self.uploaded[folder] = count
        assert self.uploaded[folder] == count, "a folder has one size"

    def processes(self) -> set[int]:
        """Everything that must live through a fault of Redis: Celery's parents, their children, the steward."""
        return {one.pid for one in [*self.node.parents(), *self.node.children(), *self.node.stewards()]}

    def settle(self, job: str, *, seconds: float = 90.0) -> Account:
        """The account of a job; its executions are those since the faults' list was last emptied."""
        return settle(self.installation, job, self.faults, seconds=seconds)

    def consuming(self, job: str, within: float = BACK_OFF) -> float:
        """Wait until a job gets on; how long that took."""
        began = time.monotonic()
        with Ledger(self.installation.settings.redis, retries=12) as ledger:
            before = ledger.view(job).done
            commands.wait_for(
                lambda: (view := ledger.view(job)).done > before or view.ended, f"job {job} to get on", within
            )
        return time.monotonic() - began


@contextlib.contextmanager
def connected(installation: Installation, chunk: int) -> Iterator[Submitter]:
    """A submitter with connections of its own."""
    with (
        ObjectStore(installation.settings.s3) as store,
        Ledger(installation.settings.redis) as ledger,
        make_celery(installation.settings, client_name="maskmill-submit") as celery,
    ):
        yield Submitter(store, ledger, celery, chunk)


def upload(installation: Installation, count: int, folder: str) -> None:
    """Put so many small pictures into a folder."""
    data = picture()
    with ObjectStore(installation.settings.s3) as store:
        for index in range(count):
            store.put(S3Url(installation.bucket, f"{folder}/{index:05d}.png"), data, content_type="image/png")
