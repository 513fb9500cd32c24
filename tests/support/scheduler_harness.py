"""The parts that keep jobs moving, for tests that act as producer, steward and worker in turn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from celery import Celery

from support.jobs import submit
from worker.contract import redis_keys
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.dispatcher import Dispatcher
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore
from worker.steward.bookkeeper import Bookkeeper
from worker.steward.feeder import Feeder
from worker.steward.reconciler import Reconciler


@dataclass(frozen=True)
class SchedulerHarness:
    """Feeder, bookkeeper and reconciler over one Redis prefix and one bucket; nothing runs until a test calls it."""

    settings: Settings
    bucket: str
    ledger: Ledger
    store: ObjectStore
    celery: Celery

    @cached_property
    def backlog(self) -> Backlog:
        return Backlog(self.ledger.connection)

    @cached_property
    def chunks(self) -> ChunkLedger:
        return ChunkLedger(self.ledger.connection)

    @cached_property
    def fleet(self) -> Fleet:
        return Fleet(self.ledger.connection)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.store, self.celery)

    @cached_property
    def feeder(self) -> Feeder:
        return Feeder(self.ledger, self.dispatcher)

    @cached_property
    def bookkeeper(self) -> Bookkeeper:
        return Bookkeeper(self.store, self.ledger, self.settings.jobs, 0)

    @property
    def out(self) -> S3Url:
        """Default destination of a job."""
        return S3Url(self.bucket, "out/")

    def reconciler(self, silence_seconds: float) -> Reconciler:
        return Reconciler(self.ledger, self.dispatcher, silence_seconds)

    def submit(self, total: int, **how: object) -> JobView:
        return submit(self.store, self.ledger, self.bucket, total, **how)

    def queued(self, *queues: str) -> list[str]:
        """Return the task ids in these queues, by default in all, the next one first."""
        found = []
        for queue in queues or redis_keys.QUEUES:
            lines = self.ledger.connection.client.lrange(redis_keys.queue(self.ledger.connection.prefix, queue), 0, -1)
            found += [json.loads(line)["headers"]["id"] for line in reversed(lines)]
        return found

    def drain(self) -> None:
        """Lose all messages."""
        for queue in redis_keys.QUEUES:
            self.ledger.connection.client.delete(redis_keys.queue(self.ledger.connection.prefix, queue))

    def first_part(self, job: str = "job", dest: str = "out") -> S3Url:
        """Return the first part of the manifest of a job."""
        return manifest.job_folder(S3Url(self.bucket, f"{dest}/"), job) / "manifest/part-00000.jsonl.gz"

    def damage(self, place: S3Url) -> None:
        self.store.put(place, b"not gzip", content_type="x")
