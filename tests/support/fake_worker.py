"""A worker and a steward in a thread, which record outcomes for every running job without reading a picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage, Outcome, OutcomeKind
from worker.contract.settings import Settings
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectStore
from worker.steward.bookkeeper import Bookkeeper

_NAME = "fake-worker@here"


class FakeWorker:
    """Appends each key that it processes to `done`. Keys in `bad` fail; those in `bad_once` fail the next time only."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger) -> None:
        self.bad: set[str] = set()
        self.bad_once: set[str] = set()
        self.done: list[str] = []
        self.idle = threading.Event()
        """While set, the worker does nothing."""
        self._store, self._chunks = store, ChunkLedger(ledger.connection)
        self._backlog = Backlog(ledger.connection)
        self._bookkeeper = Bookkeeper(store, ledger, settings.jobs, 0)
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="fake-worker")
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            if not self.idle.is_set():
                for job in self._backlog.active():
                    if job.view.status is JobStatus.RUNNING:
                        self._do(job.view)
                self._bookkeeper.tick()

    def _do(self, view: JobView) -> None:
        self._backlog.take(view.job, view.chunks, epoch=view.epoch)
        entries = list(manifest.read(self._store, view.options.dest, view.job, view.total or 0))
        for chunk in range(view.chunks):
            first = chunk * view.chunk_images
            keys = tuple(entry.key for entry in entries[first : first + view.chunk_images])
            message = ChunkMessage(job=view.job, epoch=view.epoch, chunk=chunk, start=first, keys=keys)
            lease = self._chunks.start(message, _NAME)
            for position, (key, outcome) in enumerate(zip(keys, lease.outcomes, strict=True)):
                if outcome is None:
                    lease.record([self._outcome(first + position, key)])
            lease.release(model="m", core_seconds=1.0, blameless=True)

    def _outcome(self, index: int, key: str) -> Outcome:
        self.done.append(key)
        if key in self.bad | self.bad_once:
            self.bad_once.discard(key)
            return Outcome(index=index, key=key, kind=OutcomeKind.FAILED, code="undecodable", message="why")
        return Outcome(index=index, key=key, kind=OutcomeKind.OK, outputs=(f"{key}.png",))
