from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from celery.exceptions import Ignore, Reject

from worker.contract.errors import BadMessage, BrokerUnavailable, StoreUnavailable
from worker.contract.ledger import Start, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind, OutputKind
from worker.tasks import RETRY_PAUSE_SECONDS, ChunkRunner

OK, FAILED, DEAD = OutcomeKind.OK, OutcomeKind.FAILED, OutcomeKind.DEAD
MESSAGE = ChunkMessage(job="job", chunk=2, start=6, keys=("d/a.jpg", "b.jpg", "c.jpg"))
PAYLOAD = MESSAGE.model_dump(mode="json")


@dataclass
class FakeLedger:
    answer: Start = field(default_factory=lambda: Start(Verdict.RUN, (None, None, None)))
    job_options: JobOptions = field(
        default_factory=lambda: JobOptions(source="s3://in/photos/", dest="s3://out/masks/")
    )
    recorded: list[Outcome] = field(default_factory=list)
    handed_back: int = 0
    error: Exception | None = None
    record_error: Exception | None = None

    def start(self, message):
        assert message == MESSAGE
        if self.error:
            raise self.error
        return replace(self.answer, options=self.job_options)

    def record(self, message, outcomes):
        if self.record_error:
            raise self.record_error
        self.recorded += outcomes
        return False

    def hand_back(self, message):
        assert message == MESSAGE
        self.handed_back += 1


@dataclass
class FakePipeline:
    """Gives each image the outcome told here, `ok` otherwise; ends after `limit` images."""

    kinds: dict[str, OutcomeKind] = field(default_factory=dict)
    error: Exception | None = None
    limit: int = 99
    works: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)

    def run(self, works, *, record, stop, metadata):
        self.works, self.metadata = list(works), metadata
        found = []
        for work in reversed(works[: self.limit]):  # completion is in no order
            kind = self.kinds.get(work.key, OK)
            code = "" if kind is OK else "undecodable"
            found.append(
                Outcome(index=work.index, key=work.key, kind=kind, code=code, message="broken" if code else "")
            )
            record(found[-1])
        if self.error:
            raise self.error
        return found


@dataclass
class Bench:
    ledger: FakeLedger = field(default_factory=FakeLedger)
    pipeline: FakePipeline = field(default_factory=FakePipeline)
    stopping: bool = False
    pauses: list[float] = field(default_factory=list)

    def run(self, payload=PAYLOAD):
        runner = ChunkRunner(self.ledger, self.pipeline, stopping=lambda: self.stopping, pause=self.pauses.append)
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
    assert (bench.ledger.handed_back, bench.pauses) == (0, [])


def test_places_and_metadata_come_from_the_job(bench):
    bench.ledger.job_options = JobOptions(
        source="s3://in/photos", dest="s3://out/masks/", outputs=(OutputKind.MASK, OutputKind.CUTOUT)
    )

    bench.run()

    first = bench.pipeline.works[0]
    assert str(first.source) == "s3://in/photos/d/a.jpg"
    assert {kind.value: str(place) for kind, place in first.outputs.items()} == {
        "mask": "s3://out/masks/mask/d/a.png",
        "cutout": "s3://out/masks/cutout/d/a.png",
    }
    assert first.output_keys == ("mask/d/a.png", "cutout/d/a.png")
    assert bench.pipeline.metadata == {"maskmill-options": bench.ledger.job_options.digest()}


def test_what_is_done_already_is_not_done_again_but_told(bench):
    bench.ledger.answer = Start(Verdict.RUN, (OK, None, FAILED))

    result = bench.run()

    assert [work.index for work in bench.pipeline.works] == [7]
    assert result["outcomes"] == ["ok", "ok", "failed"]
    assert result["failures"] == []


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.CANCELLED, Verdict.UNKNOWN])
def test_other_verdicts_leave_no_result(bench, verdict):
    bench.ledger.answer = Start(verdict, ())

    with pytest.raises(Ignore, match=verdict.value):
        bench.run()

    assert bench.pipeline.works == bench.ledger.recorded == bench.pauses == []


def test_a_chunk_that_keeps_killing_is_buried(bench):
    bench.ledger.answer = Start(Verdict.DEAD, (OK, None, None))

    result = bench.run()

    assert bench.pipeline.works == []
    assert [(o.index, o.key, o.kind, o.code) for o in bench.ledger.recorded] == [
        (7, "b.jpg", DEAD, "worker_lost"),
        (8, "c.jpg", DEAD, "worker_lost"),
    ]
    assert result["outcomes"] == ["ok", "dead", "dead"]
    assert [failure["key"] for failure in result["failures"]] == ["b.jpg", "c.jpg"]


def test_a_store_that_is_down_gives_the_chunk_back_after_a_pause(bench):
    bench.pipeline.error = StoreUnavailable("down")
    bench.pipeline.limit = 1

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert bench.ledger.handed_back == 1
    assert bench.pauses == [RETRY_PAUSE_SECONDS]
    assert [outcome.index for outcome in bench.ledger.recorded] == [6]


def test_a_ledger_that_is_down_gives_the_chunk_back_too(bench):
    bench.ledger.error = BrokerUnavailable("gone")

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert (bench.ledger.handed_back, bench.pauses) == (0, [RETRY_PAUSE_SECONDS])  # no attempt was counted


def test_an_outcome_that_cannot_be_recorded_gives_the_chunk_back(bench):
    bench.ledger.record_error = BrokerUnavailable("gone")

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert bench.ledger.handed_back == 1


def test_a_stopping_worker_gives_the_rest_back_at_once(bench):
    bench.stopping = True
    bench.pipeline.limit = 2

    with pytest.raises(Reject) as raised:
        bench.run()

    assert raised.value.requeue is True
    assert (bench.ledger.handed_back, bench.pauses) == (1, [])
    assert len(bench.ledger.recorded) == 2


def test_a_stopping_worker_does_not_pause_for_a_store_that_is_down(bench):
    bench.stopping = True
    bench.pipeline.error = StoreUnavailable("down")

    with pytest.raises(Reject):
        bench.run()

    assert bench.pauses == []


def test_a_stopping_worker_that_got_through_answers_as_ever(bench):
    bench.stopping = True

    assert bench.run()["outcomes"] == ["ok", "ok", "ok"]
    assert bench.ledger.handed_back == 0


@pytest.mark.parametrize("payload", [None, {}, PAYLOAD | {"schema_version": 2}, PAYLOAD | {"keys": []}, ["x"]])
def test_a_message_of_another_kind_is_refused(bench, payload):
    with pytest.raises(BadMessage):
        bench.run(payload)

    assert bench.pauses == []


def test_failed_images_are_logged_with_key_and_code(bench, caplog):
    bench.pipeline.kinds = {"b.jpg": FAILED}

    bench.run()

    [entry] = [r for r in caplog.records if "event=image_failed" in r.getMessage()]
    assert entry.levelname == "WARNING"
    assert "job=job chunk=2" in entry.getMessage()
    assert "code=undecodable key='b.jpg' broken" in entry.getMessage()
