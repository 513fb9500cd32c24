"""An object that S3 always fails for costs itself; an S3 that is down costs time and no image."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from celery.exceptions import Ignore, Reject

from support.commands import wait_for
from support.fakes import FakeNetwork
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from support.work_items import JPEG, LIMITS
from worker.contract.ledger.chunks import ChunkLease, Recorded, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, OutcomeKind
from worker.contract.storage.s3 import ObjectStore
from worker.runner.acceptance import Acceptance
from worker.runner.chunks import (
    REFUSED_PAUSE_SECONDS,
    RETRY_PAUSE_SECONDS,
    STORE_RETRY_SECONDS,
    STORE_TRIES,
    ChunkRunner,
    Identity,
)
from worker.runner.parent_channel import ParentChannel
from worker.runner.pipeline import Pipeline

KEYS = ("a.jpg", "bad.jpg", "c.jpg", "d.jpg")
MESSAGE = ChunkMessage(job="job", chunk=0, start=0, keys=KEYS)
OPTIONS = JobOptions(source="s3://b/in/", dest="s3://b/out/")
ALL_OK = dict.fromkeys(KEYS, ("ok", ""))


@dataclass(frozen=True)
class Lease(ChunkLease):
    ledger: Ledger = field(kw_only=True)

    def record(self, outcomes):
        self.ledger.outcomes |= {outcome.key: outcome for outcome in outcomes}
        return Recorded(completed=False, proceed=True)

    def store_failure(self, answer, *, index=None, tries=0, bucket="", spent=0.0):
        self.ledger.buckets.add(bucket)
        self.ledger.answers.append((index, answer))
        return sum(index is not None and counted == index for counted, _ in self.ledger.answers)

    def release(self, *, retry_after, give_back, **_):
        self.ledger.retry_after, self.ledger.given_back = retry_after, give_back
        return not retry_after and not give_back


@dataclass
class Ledger:
    """Keeps the outcomes of one chunk, and what was noted about S3."""

    outcomes: dict = field(default_factory=dict)
    answers: list = field(default_factory=list)
    buckets: set = field(default_factory=set)
    retry_after: float = 0.0
    given_back: bool = False
    policy: JobPolicy = field(default_factory=lambda: JobPolicy(skip_existing=False))

    def start(self, message, worker):
        kinds = tuple(self.outcomes[key].kind if key in self.outcomes else None for key in message.keys)
        return Lease(None, message, worker, Verdict.RUN, kinds, OPTIONS, self.policy, ledger=self)


@pytest.fixture(scope="module")
def shared():
    with MisbehavingS3() as server, ObjectStore(server.settings()) as store:
        yield server, store


@pytest.fixture
def server(shared, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    shared[0].reset(Mode())
    for key in KEYS:
        shared[0].put(f"b/in/{key}", JPEG)
    return shared[0]


@pytest.fixture
def bench(server, shared):
    """A chunk runner over a real pipeline; `deliver` runs the chunk once."""
    pipeline = Pipeline(shared[1], FakeNetwork(), "digest", LIMITS, in_flight=2)
    ledger, pauses = Ledger(), []
    channel, refused = ParentChannel(), []
    runner = ChunkRunner(ledger, pipeline, Identity("w", "m", 1), channel, pause=pauses.append, refused=refused.append)

    def deliver():
        try:
            runner.run(MESSAGE.model_dump(mode="json"))
        except (Ignore, Reject) as error:
            return type(error)
        return None

    def kinds():
        return {key: (outcome.kind.value, outcome.code) for key, outcome in ledger.outcomes.items()}

    yield SimpleNamespace(deliver=deliver, kinds=kinds, ledger=ledger, pauses=pauses, channel=channel, refused=refused)
    pipeline.close()


def always_fails(server, how):
    if how == "broken body":
        server.mode.short = "in/bad"
    else:
        method, part = ("PUT", "out/bad") if how == "put" else ("GET", "in/bad")
        server.mode.refusals = [Refusal(500, "InternalError", (method,), part)]


@pytest.mark.parametrize("how", ["get", "put", "broken body"])
def test_an_object_that_always_fails_gets_its_outcome_and_holds_up_no_process(server, bench, how):
    always_fails(server, how)
    others = {key: outcome for key, outcome in ALL_OK.items() if key != "bad.jpg"}

    for _ in range(STORE_TRIES - 1):
        assert bench.deliver() is Ignore  # the reconciler publishes the rest of the chunk later
        assert bench.kinds() == others
        assert bench.ledger.retry_after == STORE_RETRY_SECONDS
    assert bench.deliver() is None

    assert bench.kinds() == others | {"bad.jpg": ("failed", "store_failed")}
    assert "its last answer: s3://b/" in bench.ledger.outcomes["bad.jpg"].message
    assert bench.pauses == []


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_image_fails_while_s3_is_down(server, bench, method):
    """Every object of a kind of request fails; listings still work, as with a server whose disks are away."""
    server.mode.refusals = [Refusal(500, "InternalError", (method,), "/")]

    for _ in range(STORE_TRIES + 1):
        assert bench.deliver() is Ignore  # the feeder publishes the chunk later
        assert bench.ledger.given_back

    assert (bench.kinds(), bench.ledger.buckets) == ({}, {"b"})
    assert bench.pauses == [RETRY_PAUSE_SECONDS] * STORE_TRIES  # not after the first: another job may be next
    assert {index for index, _ in bench.ledger.answers} == {None}  # `status` says it, no image is blamed
    server.mode.refusals = []
    assert bench.deliver() is None
    assert bench.kinds() == ALL_OK
    bench.ledger.outcomes.clear()
    server.mode.refusals = [Refusal(500, "InternalError", (method,), "/")]
    assert (bench.deliver(), len(bench.pauses)) == (Ignore, STORE_TRIES)


def test_throttling_blames_no_image(server, bench):
    server.mode.refusals = [Refusal(503, "SlowDown", ("GET",), "in/bad")]

    for _ in range(STORE_TRIES + 1):
        assert bench.deliver() is Ignore

    assert "bad.jpg" not in bench.kinds()
    assert OutcomeKind.FAILED not in {outcome.kind for outcome in bench.ledger.outcomes.values()}


def test_the_only_object_of_a_folder_is_given_up_too(server, bench):
    always_fails(server, "get")
    server.objects = {place: stored for place, stored in server.objects.items() if place == "b/in/bad.jpg"}

    for _ in range(STORE_TRIES):
        bench.deliver()

    assert bench.kinds()["bad.jpg"] == ("failed", "store_failed")


def test_an_object_is_given_up_without_the_right_to_list(server, bench):
    """Least-rights policies may not grant it, and the job must end all the same."""
    always_fails(server, "get")
    server.mode.listing_refusal = Refusal(403, "AccessDenied")

    for _ in range(STORE_TRIES):
        bench.deliver()

    assert bench.kinds()["bad.jpg"] == ("failed", "store_failed")


# -- S3 refuses the caller ----------------------------------------------------------------------------------------

CALLER = [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")]
CALLER += [(403, "RequestTimeTooSkewed")]


@pytest.mark.parametrize("answer", CALLER)
@pytest.mark.parametrize("skip_existing", [False, True])  # HEAD hides the reason
def test_an_answer_about_the_caller_fails_no_image(server, bench, answer, skip_existing):
    server.mode.refusals = [Refusal(*answer)]
    bench.ledger.policy = JobPolicy(skip_existing=skip_existing)

    assert bench.deliver() is Reject

    assert (bench.kinds(), bench.pauses) == ({}, [])
    assert [error.code for error in bench.refused] == ["clock_skewed" if "Time" in answer[1] else "credentials_refused"]


def test_a_process_that_s3_refuses_hands_back_what_it_still_gets(server, bench):
    bench.channel.set_refused(True)

    assert bench.deliver() is Reject
    assert (bench.kinds(), bench.pauses) == ({}, [REFUSED_PAUSE_SECONDS])


def test_one_object_whose_signature_a_gateway_breaks_fails_alone(server, bench):
    server.mode.refusals = [Refusal(403, "SignatureDoesNotMatch", part="in/bad")]

    assert bench.deliver() is None

    assert bench.kinds() == ALL_OK | {"bad.jpg": ("failed", "access_denied")}
    assert "a gateway may rewrite this key" in bench.ledger.outcomes["bad.jpg"].message


def test_no_image_is_blamed_if_the_keys_have_changed_since_it_began(server, bench, monkeypatch):
    """Its request was signed with the old ones; the probe that S3 accepts, with the new ones."""
    monkeypatch.setattr(ObjectStore, "keys_changed_since", lambda *_: True)
    server.mode.refusals = [Refusal(403, "InvalidAccessKeyId", part="in/bad")]

    assert bench.deliver() is Reject

    assert "bad.jpg" not in bench.kinds()
    assert [error.code for error in bench.refused] == ["credentials_refused"]


def test_a_refused_process_is_out_of_work_until_a_probe_succeeds(server, shared):
    server.mode.refusals = [Refusal(403, "InvalidAccessKeyId")]
    channel = ParentChannel()
    acceptance = Acceptance(shared[1], channel, "worker-0@here", seconds=0.01)
    try:
        assert not acceptance.probe() and channel.refused()
        wait_for(lambda: len(server.requests) > 2, "several probes", 20)
        assert channel.refused()
        server.mode.refusals = []
        wait_for(lambda: not channel.refused(), "the probe that succeeds", 20)
    finally:
        acceptance.close()


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (501, "NotImplemented"), (503, "SlowDown")])
def test_rights_and_outages_do_not_take_a_process_out_of_work(server, shared, answer):
    server.mode.refusals = [Refusal(*answer)]
    channel = ParentChannel()
    acceptance = Acceptance(shared[1], channel, "worker-0@here")

    assert acceptance.probe() and not channel.refused()
    acceptance.close()
