"""A model of the ledger's scripts in plain Python: one job, its images and its chunks, without Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.contract.job import ENDED, JobStatus
from worker.contract.ledger.chunks import SPLIT_AFTER, Verdict
from worker.contract.messages import OutcomeKind

_GOOD = (OutcomeKind.OK, OutcomeKind.SKIPPED)
_BAD = (OutcomeKind.FAILED, OutcomeKind.DEAD)


@dataclass
class Model:
    """One job of `total` images in chunks of `size`."""

    total: int
    size: int
    max_attempts: int = 3
    max_failed: int | None = None
    max_failed_percent: float | None = None

    status: JobStatus = JobStatus.RUNNING
    epoch: int = 0
    ending: str = ""
    states: list[OutcomeKind | None] = field(default_factory=list)
    written_off: set[int] = field(default_factory=set)
    """Images without a state that count as cancelled."""

    cursor: int = 0
    returned: set[int] = field(default_factory=set)
    outstanding: set[int] = field(default_factory=set)
    holder: dict[int, str] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    suspect: dict[int, int | None] = field(default_factory=dict)
    """Chunk that runs one by one -> the image announced last."""
    deaths: dict[int, int] = field(default_factory=dict)
    pardoned: int = 0
    judged_after: int = 0

    def __post_init__(self) -> None:
        self.states = [None] * self.total

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def chunks(self) -> int:
        return -(-self.total // self.size)

    def images(self, chunk: int) -> range:
        return range(chunk * self.size, min(self.total, (chunk + 1) * self.size))

    def count(self, kind: OutcomeKind) -> int:
        return self.states.count(kind) + (len(self.written_off) if kind is OutcomeKind.CANCELLED else 0)

    @property
    def done(self) -> int:
        return sum(map(self.count, OutcomeKind))

    @property
    def bad(self) -> int:
        return sum(map(self.count, _BAD))

    def complete(self, chunk: int) -> bool:
        return None not in (self.states[i] for i in self.images(chunk))

    def too_many(self) -> bool:
        bad, done = self.bad - self.pardoned, self.done - self.judged_after
        share = self.max_failed_percent
        return (self.max_failed is not None and bad > self.max_failed) or (
            share is not None and done >= min(100, (self.total - self.judged_after) / 10) and bad * 100 > share * done
        )

    # -- operations -----------------------------------------------------------------------------------------------

    def take(self, wanted: int, epoch: int) -> list[int]:
        if self.status is not JobStatus.RUNNING or epoch != self.epoch:
            return []
        taken = sorted(self.returned)[:wanted]
        rest = range(self.cursor, min(self.chunks, self.cursor + wanted - len(taken)))
        self.returned -= set(taken)
        self.cursor += len(rest)
        self.outstanding |= {*taken, *rest}
        return [*taken, *rest]

    def start(self, chunk: int, epoch: int, worker: str, *, patient: bool) -> tuple[Verdict, bool, tuple[int, ...]]:
        """Return the verdict, whether images run one by one, and the dead images."""
        verdict = self._verdict(chunk, epoch, worker, patient=patient)
        if verdict is not Verdict.RUN:
            return verdict, False, ()
        self.outstanding.add(chunk)
        self.returned.discard(chunk)
        self.holder[chunk] = worker
        self.attempts[chunk] = self.attempts.get(chunk, 0) + 1
        if chunk not in self.suspect and self.attempts[chunk] <= SPLIT_AFTER:
            return Verdict.RUN, False, ()
        alone = self.suspect.get(chunk)
        if alone is not None and self.states[alone] is None:
            self.deaths[alone] = self.deaths.get(alone, 0) + 1
        self.suspect[chunk] = None
        return Verdict.RUN, True, tuple(i for i in self.images(chunk) if self._hopeless(i))

    def _verdict(self, chunk: int, epoch: int, worker: str, *, patient: bool) -> Verdict:
        if epoch != self.epoch or self.status is JobStatus.REOPENING:
            return Verdict.STALE
        if self.complete(chunk):
            self.forget(chunk)
            return Verdict.DONE
        if patient and self.holder.get(chunk, worker) != worker:
            return Verdict.BUSY
        if self.status is JobStatus.PAUSED:
            self.holder.pop(chunk, None)
            self._give_back(chunk)
            return Verdict.PAUSED
        if self.status is not JobStatus.RUNNING:
            self.forget(chunk)
            return Verdict.CANCELLED
        return Verdict.RUN

    def begin(self, chunk: int, epoch: int, worker: str, index: int) -> bool:
        if epoch != self.epoch or self.holder.get(chunk) != worker:
            return False
        self.suspect[chunk] = index
        return True

    def record(
        self, chunk: int, epoch: int, found: Sequence[tuple[int, OutcomeKind]], worker: str
    ) -> tuple[bool, bool]:
        """Return whether it completed the job, and whether the worker shall proceed."""
        alive = (JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.STOPPING)
        if self.status not in alive or epoch != self.epoch:
            return False, False
        progress = False
        for index, kind in found:
            old = self.states[index]
            if old is None or (old not in _GOOD and kind in _GOOD):
                self.states[index], progress = kind, True
        replaced = self.holder.get(chunk, worker) != worker
        if self.complete(chunk):
            self.forget(chunk)
        elif chunk in self.holder and progress and not replaced:
            self.attempts[chunk] = 1
        if self.done == self.total:
            if self.status is JobStatus.STOPPING:
                return False, False
            self.ending = "stopped" if self.too_many() else "finished"
            self._closing()
            return True, False
        if self.status is JobStatus.RUNNING and self.too_many():
            self.stop("stopped")
        return False, self.status is JobStatus.RUNNING and not replaced

    def release(self, chunk: int, epoch: int, worker: str, *, blameless: bool) -> bool:
        """Return whether the message goes back to the queue."""
        if epoch != self.epoch:
            return False
        if self.complete(chunk):
            self.forget(chunk)
            return False
        if self.holder.get(chunk, worker) != worker:
            return False
        if self.holder.pop(chunk, None) and blameless:
            self.attempts[chunk] = max(0, self.attempts.get(chunk, 0) - 1)
            if chunk in self.suspect:
                self.suspect[chunk] = None
        if self.status is JobStatus.PAUSED:
            self._give_back(chunk)
        elif self.status is not JobStatus.RUNNING:
            self.forget(chunk)
        elif chunk not in self.returned:
            self.outstanding.add(chunk)
            return True
        return False

    def died(self, chunk: int, worker: str) -> None:
        if self.holder.get(chunk) == worker:
            del self.holder[chunk]

    def take_lost(self, silent: Sequence[int]) -> list[int]:
        for chunk in silent:
            self.holder.pop(chunk, None)
            if self.status is JobStatus.PAUSED:
                self._give_back(chunk)
            elif self.status is not JobStatus.RUNNING:
                self.outstanding.discard(chunk)
        return list(silent) if self.status is JobStatus.RUNNING else []

    def stop(self, ending: str) -> None:
        self.status, self.ending = JobStatus.STOPPING, ending
        self.outstanding &= set(self.holder)

    def settle(self, *, patient: bool) -> bool:
        if self.status is not JobStatus.STOPPING:
            return False
        if not patient:
            self.holder.clear()
        if self.holder:
            return False
        self.written_off |= {i for i, state in enumerate(self.states) if state is None}
        self._closing()
        return True

    def close(self, epoch: int) -> bool:
        if self.status is not JobStatus.CLOSING or epoch != self.epoch:
            return False
        self.status = JobStatus(self.ending)
        return True

    def reopen(self) -> None:
        assert self.status in ENDED
        self.status, self.epoch = JobStatus.REOPENING, self.epoch + 1

    def reset(self, chunk: int, *, failed: bool, cancelled: bool) -> bool:
        """Return whether the chunk has images to run again."""
        lost = (None, OutcomeKind.CANCELLED)
        again = {i for i in self.images(chunk) if self.states[i] in ((*_BAD,) * failed + lost * cancelled)}
        if not again or chunk in self.returned:
            return False
        for index in self.images(chunk):
            if index in again:
                self.states[index] = None
                self.written_off.discard(index)
            elif self.states[index] is None:
                self.states[index] = OutcomeKind.CANCELLED
                self.written_off.discard(index)
        self.returned.add(chunk)
        return True

    def resume_reopened(self) -> None:
        self.pardoned, self.judged_after = self.bad, self.done
        if self.done == self.total:
            self.status = JobStatus.CLOSING
        else:
            self.status, self.ending, self.cursor = JobStatus.RUNNING, "", self.chunks

    def forget(self, chunk: int) -> None:
        self.outstanding.discard(chunk)
        self.returned.discard(chunk)
        for known in (self.holder, self.attempts, self.suspect):
            known.pop(chunk, None)
        for index in self.images(chunk):
            self.deaths.pop(index, None)

    def _give_back(self, chunk: int) -> None:
        self.outstanding.discard(chunk)
        self.returned.add(chunk)

    def _hopeless(self, index: int) -> bool:
        return self.states[index] is None and self.deaths.get(index, 0) >= self.max_attempts

    def _closing(self) -> None:
        self.status = JobStatus.CLOSING
        for known in (self.holder, self.attempts, self.suspect, self.deaths, self.outstanding, self.returned):
            known.clear()
