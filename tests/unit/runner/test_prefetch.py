"""The line between a worker's parent and child: asked for, one more message is taken, announced and begun."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from worker.consumer.prefetch import MOST_AHEAD, Credit, first_images
from worker.contract.messages import MAX_CHUNK_IMAGES, ChunkMessage, JobOptions
from worker.runner.parent_channel import SharedState
from worker.runner.prefetch import Lookahead

MESSAGE = ChunkMessage(job="job", chunk=2, start=6, keys=("d/a.jpg", "b.jpg", "c.jpg"))
OPTIONS = JobOptions(source="s3://in/photos/", dest="s3://out/masks/")


class FakePipeline:
    in_flight = 2

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.chunk, self.works = "", []

    def begin_ahead(self, chunk, works, metadata):
        self.chunk, self.works, self.metadata = chunk, works, metadata
        self.begun.set()


class Child:
    def __init__(self, fresh: JobOptions | None = OPTIONS) -> None:
        self.shared, self.pipeline, self.questions = SharedState(), FakePipeline(), []
        ledger = SimpleNamespace(fresh=lambda message: self.questions.append(message) or fresh)
        self.lookahead = Lookahead(ledger, self.pipeline, self.shared)


@pytest.fixture
def child():
    made = Child()
    yield made
    made.lookahead.close()


def test_what_was_asked_for_is_begun(child):
    child.lookahead.ask()
    assert child.shared.asked()

    child.shared.announce(first_images(MESSAGE).encode())

    assert child.pipeline.begun.wait(5)
    assert child.pipeline.chunk == "job.0.2"
    assert [work.index for work in child.pipeline.works] == [6, 7]  # as many as there are threads
    assert str(child.pipeline.works[0].source) == "s3://in/photos/d/a.jpg"


def test_what_was_not_asked_for_is_not_begun(child):
    """A child that replaces a dead one finds what was announced to it."""
    child.shared.announce(first_images(MESSAGE).encode())

    assert not child.pipeline.begun.wait(0.1)


def test_a_chunk_that_was_started_before_is_not_begun():
    child = Child(fresh=None)
    child.lookahead.ask()
    child.shared.announce(first_images(MESSAGE).encode())
    child.lookahead.close()

    assert child.questions == [MESSAGE]
    assert not child.pipeline.begun.is_set()


def test_a_worker_that_stops_asks_for_nothing(child):
    child.shared.stop()
    child.lookahead.ask()

    assert not child.shared.asked()


def test_the_announcement_of_the_longest_keys_fits(child):
    message = ChunkMessage(
        job="job", chunk=0, start=0, keys=tuple("k" * 1020 + f"{n:04d}" for n in range(MAX_CHUNK_IMAGES))
    )

    packet = first_images(message).encode()

    child.lookahead.ask()
    child.shared.announce(packet)
    assert child.pipeline.begun.wait(5)
    assert len(ChunkMessage.model_validate_json(packet).keys) == MOST_AHEAD


class Consumer:
    """What the bootstep needs of Celery's consumer."""

    def __init__(self) -> None:
        self.shared, self.prefetch, self.readers = SharedState(), [1], {}
        self.app = SimpleNamespace(maskmill_shared=self.shared)
        self.qos = SimpleNamespace(
            increment_eventually=lambda: self.prefetch.append(self.prefetch[-1] + 1),
            decrement_eventually=lambda: self.prefetch.append(self.prefetch[-1] - 1),
            update=lambda: None,
        )
        self.hub = SimpleNamespace(
            add_reader=lambda fd, call, *args: self.readers.update({fd: (call, args)}), remove=self.readers.pop
        )

    def look(self) -> None:
        for call, args in self.readers.values():
            call(*args)


def request(*args: object) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def test_the_credit_is_raised_by_one_until_a_message_has_come():
    consumer = Consumer()
    credit = Credit(consumer)
    credit.start(consumer)
    for _ in range(2):  # asked twice before it came: still one more
        consumer.shared.ask()
        consumer.look()
    assert consumer.prefetch == [1, 2]

    credit._received(consumer, request(MESSAGE.model_dump(mode="json")))
    credit._received(consumer, request(MESSAGE.model_dump(mode="json")))  # nobody asked for this one
    credit.stop(consumer)

    assert consumer.prefetch == [1, 2, 1]
    assert consumer.readers == {}
    assert ChunkMessage.model_validate_json(consumer.shared.announced() or b"") == MESSAGE


@pytest.mark.parametrize("args", [(), ("nonsense",), ({"schema_version": 99},)])
def test_a_message_that_cannot_be_read_lowers_the_credit_all_the_same(args):
    consumer = Consumer()
    credit = Credit(consumer)
    credit.start(consumer)
    consumer.shared.ask()
    consumer.look()

    credit._received(consumer, request(*args))
    credit.stop(consumer)

    assert consumer.prefetch == [1, 2, 1]


def test_a_worker_that_stops_takes_no_further_message():
    consumer = Consumer()
    credit = Credit(consumer)
    credit.start(consumer)
    consumer.shared.ask()
    consumer.shared.stop()
    consumer.look()
    credit.stop(consumer)

    assert consumer.prefetch == [1]
