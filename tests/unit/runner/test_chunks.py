from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from celery.exceptions import Ignore, Reject

from support.log_lines import log_text
from worker.contract.errors import BadMessage, BrokerUnavailable, StoreUnavailable
from worker.contract.ledger.chunks import ChunkLease, Recorded, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind, OutputKind
from worker.runner.chunks import RETRY_PAUSE_SECONDS, ChunkRunner, Identity
from worker.runner.parent_channel import ParentChannel

OK, FAILED, DEAD = OutcomeKind.OK, OutcomeKind.FAILED, OutcomeKind.DEAD
MESSAGE = ChunkMessage(job="job", chunk=2, start=6, keys=("d/a.jpg", "b.jpg", "c.jpg"))
IDENTITY = Identity("worker-0@host", "contrast 320", 2)
RELEASED = {"model": "contrast 320", "blameless": True, "retry_after": 0.0, "give_back": False}
PAYLOAD = MESSAGE.model_dump(mode="json")


@dataclass(frozen=True)
class FakeLease(ChunkLease):
    """Records its calls in the fake ledger."""

    ledger: FakeLedger = field(kw_only=True)

    def record(self, outcomes):
        if self.ledger.record_error:
            raise self.ledger.record_error
        self.ledger.recorded += outcomes
        self.ledger.calls.append(len(outcomes))
        return Recorded(completed=False, proceed=self.ledger.proceed)

    def begin(self, index):
        self.ledger.begun.append(index)
        return self.ledger.mine

    def store_failure(self, answer, *, index=None, tries=0, bucket="", spent=0.0):
        self.ledger.recorded_before_wait = len(self.ledger.recorded)
        self.ledger.waits.append((bucket, answer))
        self.ledger.spent.append(spent)
        return 0

    def release(self, **facts):
        assert facts.pop("core_seconds") >= 0
        self.ledger.released.append(facts)
        return self.ledger.requeue


@dataclass
class FakeLedger:
    answer: dict = field(default_factory=lambda: {"verdict": Verdict.RUN, "outcomes": (None, None, None)})
    job_options: JobOptions = field(
        default_factory=lambda: JobOptions(source="s3://in/photos/", dest="s3://out/masks/")
    )
    recorded: list[Outcome] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """Outcomes in each call of `record`."""
    released: list[dict] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    waits: list[tuple[str, str]] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    recorded_before_wait: int = 0
    proceed: bool = True
    mine: bool = True
    requeue: bool = True
    error: Exception | None = None
    record_error: Exception | None = None

    def start(self, message, worker):
        assert (message, worker) == (MESSAGE, "worker-0@host")
        if self.error:
            raise self.error
        return FakeLease(None, message, worker, options=self.job_options, ledger=self, **self.answer)


@dataclass
class FakePipeline:
    """Gives each image its outcome in `kinds`, otherwise `ok`; ends after `limit` images."""

    kinds: dict[str, OutcomeKind] = field(default_factory=dict)
    error: Exception | None = None
    limit: int = 99
    items: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)
    skip_existing: bool | None = None
    skip_own: bool | None = None
    dropped: int = 0
    store: None = None
    in_flight: int = 4
    passes: Callable[[float], None] = lambda seconds: None
    """Lets 25 s pass before an outcome, and 7 s before the error."""

    def drop_ahead(self):
        self.dropped += 1

    def run(
        self, items, *, record, poll, stop, metadata, skip_existing, skip_own, chunk, nearly_done, on_store_failure
    ):
        self.chunk, self.nearly_done = chunk, nearly_done
        self.items += items
        self.metadata, self.skip_existing, self.skip_own = metadata, skip_existing, skip_own
        found = []
        for work in reversed(items[: self.limit]):  # images complete in any order
            if stop():
                break
            self.passes(25.0)
            kind = self.kinds.get(work.key, OK)
            code = "" if kind is OK else "undecodable"
            found.append(
                Outcome(index=work.index, key=work.key, kind=kind, code=code, message="broken" if code else "")
            )
            record(found[-1])
        if self.error:
            self.passes(7.0)
            raise self.error
        return found


@dataclass
class Bench:
    ledger: FakeLedger = field(default_factory=FakeLedger)
    pipeline: FakePipeline = field(default_factory=FakePipeline)
    channel: ParentChannel = field(default_factory=ParentChannel)
    speeds: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def run(self, payload=PAYLOAD):
        runner = ChunkRunner(
            self.ledger, self.pipeline, IDENTITY, self.channel, report=self.speeds.append, pause=self.pauses.append
        )
        return runner.run(payload)


@pytest.fixture
def bench():
    return Bench()


def test_a_chunk_that_runs_answers_in_the_order_of_the_message(bench):
    bench.pipeline.kinds = {"b.jpg": FAILED}

    result = bench.run()

    assert result.pop("seconds") >= 0
    assert result == {
        "job": "job",
        "chunk": 2,
        "start": 6,
        "outcomes": ["ok", "failed", "ok"],
        "failures": [{"key": "b.jpg", "code": "undecodable", "message": "broken"}],
    }
    assert [outcome.index for outcome in bench.ledger.recorded] == [8, 7, 6]
    assert (bench.ledger.released, bench.pauses) == ([RELEASED], [])
    assert len(bench.speeds) == 1 and bench.speeds[0] >= 0


def test_destinations_and_metadata_come_from_the_job(bench):
    bench.ledger.job_options = JobOptions(
        source="s3://in/photos", dest="s3://out/masks/", outputs=(OutputKind.MASK, OutputKind.CUTOUT)
    )

    bench.run()

    first = bench.pipeline.items[0]
    assert str(first.source) == "s3://in/photos/d/a.jpg"
    assert {kind.value: str(place) for kind, place in first.outputs.items()} == {
        "mask": "s3://out/masks/mask/d/a.png",
        "cutout": "s3://out/masks/cutout/d/a.png",
    }
    assert first.output_keys == ("mask/d/a.png", "cutout/d/a.png")
    assert first.options == bench.ledger.job_options
    assert bench.pipeline.metadata == {"maskmill-options": bench.ledger.job_options.digest(), "maskmill-job": "job"}
    assert bench.pipeline.skip_existing is True


def test_images_that_are_done_are_not_done_again_and_are_in_the_result(bench):
    bench.ledger.answer["outcomes"] = (OK, None, FAILED)

    result = bench.run()

    assert [work.index for work in bench.pipeline.items] == [7]
    assert result["outcomes"] == ["ok", "ok", "failed"]
    assert result["failures"] == []


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.RUN])
def test_other_verdicts_leave_no_result(bench, verdict):
    bench.ledger.answer = {"verdict": verdict}

    with pytest.raises(Ignore, match=verdict.value):
        bench.run()

    assert bench.pipeline.items == bench.ledger.recorded == bench.pauses == []


def test_an_image_that_keeps_killing_is_recorded_as_dead_and_the_others_run_one_by_one(bench):
    bench.ledger.answer |= {"one_by_one": True, "death_reason": "killed by signal 11", "dead": (7,)}

    result = bench.run()

    assert bench.ledger.begun == [work.index for work in bench.pipeline.items] == [6, 8]
    [dead] = [o for o in bench.ledger.recorded if o.kind is DEAD]
    assert (dead.index, dead.key, dead.code) == (7, "b.jpg", "worker_lost")
    assert "died 3 times" in dead.message and "killed by signal 11" in dead.message
    assert result["outcomes"] == ["ok", "dead", "ok"]
    assert [failure["key"] for failure in result["failures"]] == ["b.jpg"]


def test_a_chunk_that_runs_one_by_one_and_was_given_to_another_worker_is_left_to_it(bench):
    bench.ledger.answer["one_by_one"] = True
    bench.ledger.mine = bench.ledger.requeue = False

    with pytest.raises(Ignore):
        bench.run()

    assert bench.pipeline.items == bench.ledger.recorded == []
    assert bench.ledger.released == [RELEASED]


def test_a_death_without_a_recorded_reason_says_so(bench):
    bench.ledger.answer |= {"outcomes": (OK, None, OK), "one_by_one": True, "dead": (7,)}

    bench.run()

    assert "no reason was recorded" in bench.ledger.recorded[0].message
    assert bench.pipeline.items == []


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_job_that_stops_releases_the_chunk_after_the_image(bench, one_by_one):
    bench.ledger.answer["one_by_one"] = one_by_one
    bench.ledger.proceed = bench.ledger.requeue = False

    with pytest.raises(Ignore):
        bench.run()

    assert len(bench.ledger.recorded) == 1
    assert (bench.ledger.released, bench.pauses) == ([RELEASED], [])


def test_a_defect_of_ours_counts_as_an_attempt(bench):
    bench.pipeline.error = ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        bench.run()

    assert bench.ledger.released == [RELEASED | {"blameless": False}]


def test_a_store_that_is_down_gives_the_chunk_back_without_a_pause(bench):
    """The process is free for other jobs at once; the feeder publishes the chunk later."""
    bench.pipeline.error = StoreUnavailable("down", bucket="in")
    bench.pipeline.limit = 1

    with pytest.raises(Ignore):
        bench.run()

    assert bench.ledger.released == [RELEASED | {"give_back": True}]
    assert (bench.ledger.waits, bench.pauses) == ([("in", "down")], [])
    assert [outcome.index for outcome in bench.ledger.recorded] == [6]


def test_the_time_in_which_images_got_outcomes_does_not_count_as_a_try_of_the_store(bench, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("worker.runner.chunks.time", SimpleNamespace(monotonic=lambda: clock[0]))
    bench.pipeline.error = StoreUnavailable("down", bucket="in")
    bench.pipeline.limit, bench.pipeline.passes = 1, (lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    with pytest.raises(Ignore):
        bench.run()

    assert bench.ledger.spent == [7.0]


def test_outcomes_of_quick_images_share_a_call(bench):
    bench.run()

    assert bench.ledger.calls == [1, 2]
    assert bench.pipeline.skip_own is False


def test_a_chunk_that_was_started_before_records_each_image_at_once(bench):
    """It may have killed that worker: what it does before the next kill must show as progress."""
    bench.ledger.answer["starts"] = 2

    bench.run()

    assert bench.ledger.calls == [1, 1, 1]
    assert bench.pipeline.skip_own is True


def test_outcomes_that_wait_are_recorded_before_the_failure_of_the_store(bench):
    """The other way round, they would be progress after the failure, and S3 would count as available again."""
    bench.pipeline.error = StoreUnavailable("down", bucket="in")

    with pytest.raises(Ignore):
        bench.run()

    assert bench.ledger.recorded_before_wait == 3


def test_a_ledger_that_is_down_gives_the_chunk_back_too(bench):
    bench.ledger.error = BrokerUnavailable("gone")

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert (bench.ledger.released, bench.pauses) == ([], [RETRY_PAUSE_SECONDS])  # no attempt was counted


def test_an_outcome_that_cannot_be_recorded_gives_the_chunk_back(bench):
    bench.ledger.record_error = BrokerUnavailable("gone")

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert bench.ledger.released == [RELEASED]


def test_a_stopping_worker_gives_the_rest_back_at_once(bench):
    bench.pipeline.limit = 2

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert (bench.ledger.released, bench.pauses) == ([RELEASED], [])
    assert len(bench.ledger.recorded) == 2


def test_a_stopping_worker_does_not_pause_for_a_store_that_is_down(bench):
    bench.channel.stop()
    bench.pipeline.error = StoreUnavailable("down")

    with pytest.raises(Reject):
        bench.run()

    assert bench.pauses == []


def test_a_stopping_worker_starts_no_image(bench):
    bench.channel.stop()

    with pytest.raises(Reject):
        bench.run()

    assert bench.ledger.recorded == []


@pytest.mark.parametrize("payload", [None, {}, PAYLOAD | {"schema_version": 2}, PAYLOAD | {"keys": []}, ["x"]])
def test_a_message_of_another_kind_is_refused_in_one_line(bench, payload, caplog):
    with pytest.raises(Ignore):
        bench.run(payload)

    assert bench.pauses == []
    [line] = [record for record in caplog.records if record.msg == "dropped"]
    assert line.exc_info is None


def test_failed_images_are_logged_with_key_and_code(bench, caplog):
    bench.pipeline.kinds = {"b.jpg": FAILED}

    bench.run()

    [entry] = [r for r in caplog.records if r.event == "image_failed"]
    assert entry.levelname == "WARNING"
    assert (entry.fields["job"], entry.fields["chunk"]) == ("job", 2)
    assert (entry.fields["code"], entry.fields["key"], entry.getMessage()) == ("undecodable", "b.jpg", "broken")


def test_options_that_this_worker_does_not_know_drop_the_message_without_a_traceback(caplog):
    """Celery would log a traceback for each message, and store an error as the result of the chunk."""
    bench = Bench(ledger=FakeLedger(error=BadMessage("job job uses options that this worker does not know")))

    with pytest.raises(Ignore):
        bench.run()
    assert "event=job_record_invalid" in log_text(caplog)
