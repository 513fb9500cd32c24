"""The ledger's scripts under any order of events, beside a model in plain Python.

The events are those of a fleet: messages are published, delivered twice, lost and late; workers run, die, vanish and
come back as if nothing had been; people cancel, pause and retry. After each event the scripts must have done what the
model did, and what is promised of a job must hold. In the end one healthy worker must be able to bring it to its end.

Nothing waits for a clock: silence is an argument (of who looks), so "silent for long" is 0 s and "not yet" is a year.

    LEDGER_MODEL_EXAMPLES=5000 pytest tests/integration/contract/ledger/test_ledger_model.py    looks much longer
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.ledger_model import Model
from worker.contract import redis_keys
from worker.contract.errors import JobStateError
from worker.contract.job import ENDED, JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind

OK, SKIPPED, FAILED, DEAD = OutcomeKind.OK, OutcomeKind.SKIPPED, OutcomeKind.FAILED, OutcomeKind.DEAD
OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
WORKERS = ("a", "b", "c")
HEALER = "healer"
EXAMPLES = int(os.environ.get("LEDGER_MODEL_EXAMPLES", "0"))
YEAR = 3e7

_numbers = count()


@dataclass
class Run:
    """A worker is at a chunk."""

    message: ChunkMessage
    todo: list[int]
    careful: bool
    bury: tuple[int, ...]
    leased: bool = True
    """The broker knows that the message is here; else a copy of it may be anywhere."""


class Machine(RuleBasedStateMachine):
    """One job, three workers, one broker."""

    def __init__(self, patient: Ledger, impatient: Ledger) -> None:
        super().__init__()
        self.ledger = patient
        self.ledgers = {True: patient, False: impatient}
        self.backlog = Backlog(patient.link)
        self.client = patient.link.client
        self.job = f"job{next(_numbers)}"
        self.keys = redis_keys.job_keys(patient.link.prefix, self.job)
        self.queue: list[ChunkMessage] = []
        self.sent: list[ChunkMessage] = []
        self.runs: dict[str, Run] = {}
        self.completions: Counter[int] = Counter()
        self.reopening: tuple[bool, bool] | None = None
        self.model: Model

    @initialize(
        total=st.integers(1, 9),
        size=st.integers(1, 4),
        attempts=st.integers(1, 2),
        limit=st.sampled_from([None, None, None, (0, None), (1, None), (3, None), (None, 0.0), (None, 40.0)]),
    )
    def submit(self, total, size, attempts, limit):
        most, percent = limit or (None, None)
        policy = JobPolicy(max_attempts=attempts, max_failed=most, max_failed_percent=percent)
        self.model = Model(total, size, attempts, most, percent)
        self.ledger.create(self.job, OPTIONS, policy)
        assert self.ledger.seal(self.job, total=total, chunk_images=size, size=1)

    # -- the broker -----------------------------------------------------------------------------------------------

    @rule(wanted=st.integers(1, 4), lost=st.integers(0, 9), late=st.booleans())
    def publish(self, wanted, lost, late):
        """Sometimes the leader dies between taking and sending, or has an old view of the job."""
        epoch = self.model.epoch - (late and self.model.epoch > 0)
        taken = self.backlog.take(self.job, wanted, epoch=epoch)
        assert taken == self.model.take(wanted, epoch)
        if lost:
            self.send(taken)

    def send(self, chunks):
        messages = [self.message(chunk) for chunk in chunks]
        self.queue += messages
        self.sent += messages

    def message(self, chunk):
        images = self.model.images(chunk)
        keys = tuple(f"{i}.jpg" for i in images)
        return ChunkMessage(job=self.job, epoch=self.model.epoch, chunk=chunk, start=images[0], keys=keys)

    @precondition(lambda self: self.queue)
    @rule(pick=st.integers(0, 99))
    def lose_a_message(self, pick):
        del self.queue[pick % len(self.queue)]

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 99))
    def deliver_again(self, pick):
        """Any message that ever was, of this epoch or another."""
        self.queue.append(self.sent[-1 - pick % len(self.sent)])

    @rule(lost=st.booleans())
    def reconcile(self, lost):
        present = {(m.epoch, m.chunk) for m in self.queue}
        present |= {(run.message.epoch, run.message.chunk) for run in self.runs.values() if run.leased}
        silent = self.backlog.silent(self.job, 0)
        assert set(silent) == self.model.outstanding
        missing = [chunk for chunk in silent if (self.model.epoch, chunk) not in present]
        again = self.backlog.reclaim(self.job, missing, 0) if missing else []
        assert again == self.model.reclaim(missing)
        if not lost:
            self.send(again)

    def reclaim_what_is_not_missing(self, chunk):
        """Who looks with old eyes: nothing is silent, or not outstanding at all."""
        assert self.backlog.reclaim(self.job, [chunk], YEAR) == []
        if chunk not in self.model.outstanding:
            assert self.backlog.reclaim(self.job, [chunk], 0) == []

    # -- workers --------------------------------------------------------------------------------------------------

    def idle(self):
        return [worker for worker in WORKERS if worker not in self.runs]

    @precondition(lambda self: self.idle() and self.model.status is JobStatus.RUNNING)
    @rule(who=st.integers(0, 2), patient=st.booleans())
    def publish_and_start(self, who, patient):
        self.publish(1, lost=1, late=False)
        if self.queue:
            self.start(who, len(self.queue) - 1, patient)

    @precondition(lambda self: self.queue and self.idle())
    @rule(who=st.integers(0, 2), pick=st.integers(0, 99), patient=st.booleans())
    def start(self, who, pick, patient):
        idle = self.idle()
        worker, message = idle[who % len(idle)], self.queue.pop(pick % len(self.queue))
        self.start_with(worker, message, patient=patient)

    def start_with(self, worker, message, *, patient):
        expected = self.model.start(message.chunk, message.epoch, worker, patient=patient)
        found = self.ledgers[patient].start(message, worker)
        assert (found.verdict, found.careful, found.bury) == expected
        if found.verdict is not Verdict.STALE:
            assert list(found.outcomes) == [self.model.states[i] for i in self.model.images(message.chunk)]
        if found.verdict is Verdict.RUN:
            todo = [message.start + i for i, kind in enumerate(found.outcomes) if kind is None]
            run = Run(message, [i for i in todo if i not in found.bury], found.careful, found.bury)
            self.runs[worker] = run
            if found.bury:
                self.write(worker, run, [(i, DEAD) for i in found.bury])
        return found.verdict

    def write(self, worker, run, found):
        expected = self.model.record(run.message.chunk, run.message.epoch, found, worker)
        outcomes = [
            Outcome(index=i, key=f"{i}.jpg", kind=kind, code="bad" if kind in (FAILED, DEAD) else "")
            for i, kind in found
        ]
        answer = self.ledger.record(run.message, outcomes, worker)
        assert (answer.completed, answer.go_on) == expected
        self.completions[run.message.epoch] += answer.completed
        again = self.ledger.record(run.message, outcomes, worker)  # a call whose answer was lost is made again
        assert (again.completed, again.go_on) == self.model.record(run.message.chunk, run.message.epoch, found, worker)
        return answer.go_on

    def busy(self, who):
        workers = sorted(self.runs)
        return workers[who % len(workers)]

    @precondition(lambda self: self.runs)
    @rule(
        who=st.integers(0, 2),
        picks=st.lists(
            st.tuples(st.integers(0, 9), st.sampled_from([OK, OK, SKIPPED, FAILED])), min_size=1, max_size=3
        ),
        obedient=st.booleans(),
    )
    def images_end(self, who, picks, obedient):
        """Images that were in work when a job is told to stop end all the same, and a zombie is told nothing."""
        worker = self.busy(who)
        run = self.runs[worker]
        for pick, kind in picks[: len(run.todo)]:
            index = run.todo.pop(pick % len(run.todo))
            if run.careful:
                self.announce(worker, index)
            if not self.write(worker, run, [(index, kind)]) and obedient:
                break

    @precondition(lambda self: any(run.careful and run.todo for run in self.runs.values()))
    @rule(who=st.integers(0, 2), pick=st.integers(0, 9))
    def an_image_is_announced(self, who, pick):
        workers = [worker for worker, run in sorted(self.runs.items()) if run.careful and run.todo]
        worker = workers[who % len(workers)]
        run = self.runs[worker]
        self.announce(worker, run.todo[pick % len(run.todo)])

    def announce(self, worker, index):
        message = self.runs[worker].message
        expected = self.model.begin(message.chunk, message.epoch, worker, index)
        assert self.ledger.begin(message, worker, index) == expected

    @precondition(lambda self: self.runs)
    @rule(who=st.integers(0, 2), blameless=st.booleans(), twice=st.booleans())
    def release(self, who, blameless, twice):
        worker = self.busy(who)
        run = self.runs.pop(worker)
        if self.let_go(worker, run, blameless=blameless):
            self.queue.append(run.message)
        if twice:  # a call whose answer was lost is made again
            self.let_go(worker, run, blameless=blameless)

    def let_go(self, worker, run, *, blameless):
        expected = self.model.release(run.message.chunk, run.message.epoch, worker, blameless=blameless)
        again = self.ledger.release(run.message, worker, model="m", core_seconds=1.0, blameless=blameless)
        assert again == expected
        return again

    @precondition(lambda self: self.runs)
    @rule(who=st.integers(0, 2))
    def child_dies(self, who):
        """Its parent sees it."""
        worker = self.busy(who)
        run = self.runs.pop(worker)
        self.ledger.died(run.message, worker, "killed")
        self.model.died(run.message.chunk, worker)
        self.queue.append(run.message)

    @precondition(lambda self: self.runs)
    @rule(
        who=st.integers(0, 2),
        times=st.integers(1, 7),
        announced=st.integers(0, 3),
        pick=st.integers(0, 9),
        saved=st.integers(0, 3),
    )
    def a_chunk_kills(self, who, times, announced, pick, saved):
        """The same chunk, over and over, in the hands of one worker; sometimes a zombie does the image meanwhile."""
        worker = self.busy(who)
        for _ in range(times):
            run = self.runs[worker]
            if not saved and run.todo:
                self.write(worker, Run(run.message, [], careful=False, bury=()), [(run.todo[pick % len(run.todo)], OK)])
            if announced and run.careful and run.todo:
                self.announce(worker, run.todo[pick % len(run.todo)])
            self.child_dies(sorted(self.runs).index(worker))
            if self.start_with(worker, self.queue.pop(), patient=True) is not Verdict.RUN:
                return

    @precondition(lambda self: self.runs and self.idle())
    @rule(who=st.integers(0, 2), other=st.integers(0, 2), patient=st.booleans())
    def a_copy_is_started(self, who, other, patient):
        """The lease of a worker that still works ended, and another gets the message."""
        idle = self.idle()
        run = self.runs[self.busy(who)]
        run.leased = False
        self.start_with(idle[other % len(idle)], run.message, patient=patient)

    @precondition(lambda self: self.runs)
    @rule(who=st.integers(0, 2), returns=st.booleans())
    def vanish(self, who, returns):
        """A node is gone; its message comes back with the lease, or not even that."""
        run = self.runs.pop(self.busy(who))
        if returns and run.leased:
            self.queue.append(run.message)

    @precondition(lambda self: any(run.leased for run in self.runs.values()))
    @rule(who=st.integers(0, 2), returns=st.booleans())
    def lease_ends(self, who, returns):
        """A worker that is cut off works on; its message is delivered again, or is lost."""
        run = self.runs[self.busy(who)]
        if run.leased:
            run.leased = False
            if returns:
                self.queue.append(run.message)

    @precondition(lambda self: self.sent)
    @rule(
        pick=st.integers(0, 99),
        who=st.integers(0, 2),
        what=st.sampled_from(["record", "record", "record", "begin", "release", "died"]),
        image=st.integers(0, 9),
        kind=st.sampled_from([OK, SKIPPED, FAILED]),
    )
    def a_late_word(self, pick, who, what, image, kind):
        """A straggler may say anything of any chunk that ever was: of this epoch or another, done or in other hands."""
        message, worker = self.sent[-1 - pick % len(self.sent)], WORKERS[who]
        if worker in self.runs and self.runs[worker].message == message:
            return  # it is at it: its other rules say what it does
        run = Run(message, [], careful=False, bury=())
        index = message.start + image % len(message.keys)
        if what == "record":
            self.write(worker, run, [(index, kind)])
        elif what == "begin":
            expected = self.model.begin(message.chunk, message.epoch, worker, index)
            assert self.ledger.begin(message, worker, index) == expected
        elif what == "release":
            self.let_go(worker, run, blameless=True)
        else:
            self.ledger.died(message, worker, "killed")
            self.model.died(message.chunk, worker)

    @precondition(lambda self: self.model.status is JobStatus.RUNNING)
    @rule(
        kinds=st.lists(st.sampled_from([OK, OK, SKIPPED, FAILED, None]), min_size=1, max_size=6), more=st.integers(1, 3)
    )
    def most_of_it_runs(self, kinds, more):
        """Time passes: chunks run through, some with images left undone."""
        self.publish(more, lost=1, late=False)
        kinds = cycle(kinds)
        for message in self.queue[:more]:
            self.queue.remove(message)
            if self.start_with(HEALER, message, patient=True) is not Verdict.RUN:
                continue
            run = self.runs.pop(HEALER)
            found = [(index, kind) for index, kind in zip(run.todo, kinds, strict=False) if kind]
            if found:
                self.write(HEALER, run, found)
            if self.let_go(HEALER, run, blameless=True):
                self.queue.append(message)

    # -- people ---------------------------------------------------------------------------------------------------

    @rule(chunk=st.integers(0, 9), really=st.integers(0, 2))
    def what_changes_nothing(self, chunk, really):
        """A call whose answer was lost is made again, and calls that come at the wrong time."""
        if really:
            return
        model, status = self.model, self.model.status
        assert self.ledger.seal(self.job, total=model.total, chunk_images=model.size, size=1)
        assert not self.ledger.abandon_silent(self.job, 0, "was not being listed any more")
        self.reclaim_what_is_not_missing(chunk)
        running = (JobStatus.RUNNING, JobStatus.PAUSED)
        told = (JobStatus.STOPPING, JobStatus.CLOSING, JobStatus.CANCELLED)
        if status is not JobStatus.REOPENING and status not in ENDED:
            self.refused(lambda: self.ledger.reopen(self.job, failed=True, cancelled=True))
        if status in told:
            assert self.ledger.cancel(self.job).status is status
        elif status not in running:
            self.refused(lambda: self.ledger.cancel(self.job))
        if status not in running:
            self.refused(lambda: self.ledger.pause(self.job))
            self.refused(lambda: self.ledger.resume(self.job))
        assert self.backlog.close(self.job, model.epoch + 1, 600) is False
        if status is not JobStatus.CLOSING:
            assert self.backlog.close(self.job, model.epoch, 600) is False
        if status is not JobStatus.STOPPING:
            assert self.backlog.settle(self.job, 0) is False

    def refused(self, call):
        with pytest.raises(JobStateError, match=self.job):
            call()

    @precondition(lambda self: self.model.status in (JobStatus.RUNNING, JobStatus.PAUSED))
    @rule(really=st.integers(0, 3))
    def cancel(self, really):
        if not really:
            self.ledger.cancel(self.job)
            self.model.stop("cancelled")

    @precondition(lambda self: self.model.status is JobStatus.RUNNING)
    @rule(really=st.integers(0, 1))
    def pause(self, really):
        if not really:
            self.ledger.pause(self.job)
            self.model.status = JobStatus.PAUSED

    @precondition(lambda self: self.model.status is JobStatus.PAUSED)
    @rule(who=st.integers(0, 2), pick=st.integers(0, 99))
    def what_was_in_work_comes_to_rest(self, who, pick):
        """Workers hear of the pause after an image; what is in the queue is handed back, what is lost is missed."""
        if self.runs:
            self.release(who, blameless=True, twice=False)
        if self.queue and self.idle():
            self.start(who, pick, patient=False)
        self.reconcile(lost=False)

    @precondition(lambda self: self.model.status is JobStatus.PAUSED)
    @rule()
    def resume(self):
        self.ledger.resume(self.job)
        self.model.status = JobStatus.RUNNING

    @precondition(lambda self: self.model.status in ENDED)
    @rule(choice=st.sampled_from([(True, False), (False, True), (True, True)]), interrupted=st.integers(0, 9))
    def retry(self, choice, interrupted):
        """Sometimes whoever asked is gone after so many chunks."""
        failed, cancelled = choice
        assert self.ledger.link.run("reopen", self.job, int(failed)) == self.model.epoch + 1
        self.model.reopen()
        self.reopening = choice
        if interrupted:
            self.reset(range(min(interrupted - 1, self.model.chunks)), failed=failed, cancelled=cancelled)
        else:
            self.finish_retry()

    def reset(self, chunks, *, failed, cancelled):
        for chunk in chunks:
            images, flags = self.model.images(chunk), (int(failed), int(cancelled))
            if self.model.reset(chunk, failed=failed, cancelled=cancelled):
                self.ledger.link.run("reset", self.job, chunk, images[0], len(images), *flags)

    @precondition(lambda self: self.reopening)
    @rule()
    def finish_retry(self):
        failed, cancelled = self.reopening
        self.ledger.reopen(self.job, failed=failed, cancelled=cancelled)
        for chunk in range(self.model.chunks):
            self.model.reset(chunk, failed=failed, cancelled=cancelled)
        self.model.resume_reopened()
        self.reopening = None

    # -- the bookkeeper -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.status is JobStatus.STOPPING)
    @rule(patient=st.booleans())
    def settle(self, patient):
        settled = self.backlog.settle(self.job, YEAR if patient else 0)
        assert settled == self.model.settle(patient=patient)
        if settled:
            self.close(late=False)

    @precondition(lambda self: self.model.status is JobStatus.CLOSING)
    @rule(late=st.booleans())
    def close(self, late):
        epoch = self.model.epoch - late
        assert self.backlog.close(self.job, epoch, 600) == self.model.close(epoch)

    # -- what is promised -----------------------------------------------------------------------------------------

    @invariant()
    def promises_hold(self):
        model, keys = self.model, self.keys
        pipeline = self.client.pipeline(transaction=False)
        for hashed in (keys.running, keys.attempts, keys.suspects):
            pipeline.hgetall(hashed)
        pipeline.zrange(keys.outstanding, 0, -1)
        pipeline.lrange(keys.failures, 0, -1)
        pipeline.exists(keys.running, keys.attempts, keys.suspects, keys.outstanding, keys.returned)
        pipeline.xrange(keys.log)
        pipeline.bitcount(keys.returned)
        running, attempts, suspects, outstanding, failures, leftovers, log, returned = pipeline.execute()
        view = self.ledger.view(self.job)
        states = self.ledger.outcomes(self.job, 0, model.total)

        # Every image has one outcome or none, the counters say the same, and redelivery moves neither.
        assert states == model.states
        assert {kind: getattr(view, kind.value) for kind in OutcomeKind} == {k: model.count(k) for k in OutcomeKind}
        assert (view.status, view.epoch, view.ending) == (model.status, model.epoch, model.ending)
        assert view.done <= model.total
        assert (view.done == model.total) == (view.status is JobStatus.CLOSING or view.ended) or (
            view.status in (JobStatus.STOPPING, JobStatus.REOPENING)
        )
        bad = {i for i, state in enumerate(states) if state in (FAILED, DEAD)}
        if view.status is not JobStatus.REOPENING:  # then they are being forgotten, chunk by chunk
            assert sum(view.codes.values()) == view.failed + view.dead
            assert {json.loads(line)["index"] for line in failures} == bad

        # What the log says last of an image is what counts.
        last = {line["index"]: line["kind"] for line in (json.loads(fields["o"]) for _, fields in log)}
        for index, state in enumerate(states):
            if state in (OK, SKIPPED, FAILED, DEAD):
                assert last[index] == state.value

        # A job ends once in each epoch.
        assert all(times <= 1 for times in self.completions.values())

        # Nothing is forgotten: it is to be published, on its way, or counts as cancelled.
        assert {int(chunk) for chunk in outstanding} == model.outstanding
        assert returned == len(model.returned)
        if view.status in (JobStatus.RUNNING, JobStatus.PAUSED):
            for index, state in enumerate(states):
                chunk = index // model.size
                if state is None and index not in model.written_off:
                    assert chunk >= view.cursor or chunk in model.returned or chunk in model.outstanding

        # Nothing is left of a job that ended, and little is kept of one that runs.
        if view.status is JobStatus.CLOSING or view.ended:
            assert leftovers == 0
        assert {int(chunk): worker for chunk, worker in running.items()} == model.holder
        assert set(model.holder) <= model.outstanding
        assert {int(chunk) for chunk in attempts} == set(model.attempts)
        assert {int(name[6:]) for name in suspects if name.startswith("chunk:")} == set(model.suspect)
        assert {int(name[7:]): int(n) for name, n in suspects.items() if name.startswith("deaths:")} == model.deaths
        assert not any(model.complete(chunk) for chunk in {*model.attempts, *model.suspect})
        assert all(deaths <= model.max_attempts + len(WORKERS) for deaths in model.deaths.values())

    def teardown(self):
        """One healthy worker, one reconciler, and the job comes to its end."""
        if not hasattr(self, "model"):
            return
        if self.reopening:
            self.finish_retry()
        self.runs.clear()
        if self.model.status is JobStatus.PAUSED:
            self.resume()
        for _ in range(4 * self.model.chunks + 8):
            if self.model.status in ENDED:
                break
            self.reconcile(lost=False)
            self.publish(4, lost=1, late=False)
            while self.queue:
                if self.start_with(HEALER, self.queue.pop(0), patient=False) is Verdict.RUN:
                    run = self.runs.pop(HEALER)
                    for index in run.todo:
                        self.write(HEALER, run, [(index, OK)])
                    self.let_go(HEALER, run, blameless=True)
            if self.model.status is JobStatus.STOPPING:
                self.settle(patient=False)
            self.close(late=False)
        self.promises_hold()
        view = self.ledger.view(self.job)
        assert view.ended and view.done == view.total
        self.ledger.forget(self.job)


@pytest.fixture
def ledgers(installation) -> Iterator[tuple[Ledger, Ledger]]:
    with (
        Ledger(installation.settings.redis, silence_seconds=YEAR) as patient,
        Ledger(installation.settings.redis, silence_seconds=0) as impatient,
    ):
        yield patient, impatient


@pytest.mark.timeout(max(600, EXAMPLES))  # of which a run that finds nothing takes seconds; shrinking takes minutes
def test_the_scripts_do_what_the_model_does(ledgers):
    run_state_machine_as_test(
        lambda: Machine(*ledgers),
        settings=settings(
            max_examples=EXAMPLES or 250,
            stateful_step_count=40 if not EXAMPLES else 80,
            derandomize=not EXAMPLES,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
