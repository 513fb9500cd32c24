"""Prefetch at both ends: on request the parent takes one more message, and the model process starts it ahead."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from worker.consumer.prefetch import MAX_AHEAD, Prefetch, first_images
from worker.contract.messages import MAX_CHUNK_IMAGES, ChunkMessage, JobOptions
from worker.runner.parent_channel import ParentChannel
from worker.runner.prefetch import Prefetcher

MESSAGE = ChunkMessage(job="job", chunk=2, start=6, keys=("d/a.jpg", "b.jpg", "c.jpg"))
OPTIONS = JobOptions(source="s3://in/photos/", dest="s3://out/masks/")


class FakePipeline:
    in_flight = 2

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.chunk, self.items = "", []

    def begin_ahead(self, chunk, items, metadata):
        self.chunk, self.items, self.metadata = chunk, items, metadata
        self.begun.set()


class ModelProcess:
    def __init__(self, options: JobOptions | None = OPTIONS) -> None:
        self.channel, self.pipeline, self.queries = ParentChannel(), FakePipeline(), []
        ledger = SimpleNamespace(options_if_unstarted=lambda message: self.queries.append(message) or options)
        self.prefetcher = Prefetcher(ledger, self.pipeline, self.channel)


@pytest.fixture
def model():
    made = ModelProcess()
    yield made
    made.prefetcher.close()


def test_a_requested_chunk_starts_ahead(model):
    model.prefetcher.request_next()
    assert model.channel.next_requested()

    model.channel.send_next(first_images(MESSAGE).encode())

    assert model.pipeline.begun.wait(5)
    assert model.pipeline.chunk == "job.0.2"
    assert [work.index for work in model.pipeline.items] == [6, 7]  # as many as there are threads
    assert str(model.pipeline.items[0].source) == "s3://in/photos/d/a.jpg"


def test_a_chunk_that_was_not_requested_does_not_start_ahead(model):
    """A model process that replaces a dead one finds a packet that was sent to that one."""
    model.channel.send_next(first_images(MESSAGE).encode())

    assert not model.pipeline.begun.wait(0.1)


def test_a_chunk_that_was_started_before_does_not_start_ahead():
    model = ModelProcess(options=None)
    model.prefetcher.request_next()
    model.channel.send_next(first_images(MESSAGE).encode())
    model.prefetcher.close()

    assert model.queries == [MESSAGE]
    assert not model.pipeline.begun.is_set()


def test_a_worker_that_stops_requests_nothing(model):
    model.channel.stop()
    model.prefetcher.request_next()

    assert not model.channel.next_requested()


def test_the_longest_keys_fit_into_a_packet(model):
    message = ChunkMessage(
        job="job", chunk=0, start=0, keys=tuple("k" * 1020 + f"{n:04d}" for n in range(MAX_CHUNK_IMAGES))
    )

    packet = first_images(message).encode()

    model.prefetcher.request_next()
    model.channel.send_next(packet)
    assert model.pipeline.begun.wait(5)
    assert len(ChunkMessage.model_validate_json(packet).keys) == MAX_AHEAD


class Consumer:
    """What the bootstep needs from Celery's consumer."""

    def __init__(self) -> None:
        self.channel, self.prefetch, self.readers = ParentChannel(), [1], {}
        self.app = SimpleNamespace(maskmill_parent_channel=self.channel)
        self.qos = SimpleNamespace(
            increment_eventually=lambda: self.prefetch.append(self.prefetch[-1] + 1),
            decrement_eventually=lambda: self.prefetch.append(self.prefetch[-1] - 1),
            update=lambda: None,
        )
        self.hub = SimpleNamespace(
            add_reader=lambda fd, call, *args: self.readers.update({fd: (call, args)}), remove=self.readers.pop
        )

    def read(self) -> None:
        for call, args in self.readers.values():
            call(*args)


def request(*args: object) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def test_the_prefetch_count_is_raised_by_one_until_a_message_has_arrived():
    consumer = Consumer()
    step = Prefetch(consumer)
    step.start(consumer)
    for _ in range(2):  # requested twice before it arrived: still one more
        consumer.channel.request_next()
        consumer.read()
    assert consumer.prefetch == [1, 2]

    step._received(consumer, request(MESSAGE.model_dump(mode="json")))
    step._received(consumer, request(MESSAGE.model_dump(mode="json")))  # not requested
    step.stop(consumer)

    assert consumer.prefetch == [1, 2, 1]
    assert consumer.readers == {}
    assert ChunkMessage.model_validate_json(consumer.channel.receive_next() or b"") == MESSAGE


@pytest.mark.parametrize("args", [(), ("nonsense",), ({"schema_version": 99},)])
def test_a_message_that_cannot_be_read_lowers_the_prefetch_count_too(args):
    consumer = Consumer()
    step = Prefetch(consumer)
    step.start(consumer)
    consumer.channel.request_next()
    consumer.read()

    step._received(consumer, request(*args))
    step.stop(consumer)

    assert consumer.prefetch == [1, 2, 1]


def test_a_worker_that_stops_takes_no_further_message():
    consumer = Consumer()
    step = Prefetch(consumer)
    step.start(consumer)
    consumer.channel.request_next()
    consumer.channel.stop()
    consumer.read()
    step.stop(consumer)

    assert consumer.prefetch == [1]
