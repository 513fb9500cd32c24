"""Images that start before the ledger has given their chunk to this worker: computed, but not written or recorded."""

from __future__ import annotations

import threading
import time

import pytest

from support.fakes import FakeNetwork
from support.work_items import LIMITS, numbered, work_item
from worker.contract.messages import OutcomeKind, OutputKind
from worker.runner.pipeline import Pipeline
from worker.telemetry.timing import Stage

WAIT = 5.0


class Ahead:
    """A pipeline over fakes, and the stages it has run."""

    def __init__(self, images: int, in_flight: int = 3) -> None:
        self.store, self.network = numbered(images), FakeNetwork()
        self.seen: list[Stage] = []
        self.pipeline = Pipeline(
            self.store,
            self.network,
            "sha",
            LIMITS,
            in_flight=in_flight,
            observe=lambda stage, *_: self.seen.append(stage),
        )

    def wait(self, condition) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def written(self) -> list[str]:
        return sorted(url for url in self.store.objects if url.startswith("s3://out/"))


@pytest.fixture
def ahead():
    made = Ahead(6)
    yield made
    made.pipeline.close()


ITEMS = [work_item(index) for index in range(6)]


def test_nothing_is_written_before_the_chunk_is_granted(ahead):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
    ahead.wait(lambda: ahead.seen.count(Stage.RENDER) == 3)

    assert ahead.written() == []

    recorded = []
    outcomes = ahead.pipeline.run(ITEMS, record=recorded.append, chunk="job.0.1")

    assert sorted(outcome.index for outcome in outcomes) == list(range(6)) and recorded == outcomes
    assert len(ahead.written()) == 6
    assert ahead.network.calls == 6  # none twice
    assert ahead.seen.count(Stage.HOLD) == 3


def test_no_more_images_start_ahead_than_there_are_threads(ahead):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
    ahead.wait(lambda: ahead.seen.count(Stage.RENDER) == 3)
    time.sleep(0.05)

    assert ahead.network.calls == 3


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"chunk": "job.0.2"}, id="another chunk"),
        pytest.param({"chunk": "job.0.1", "metadata": {"maskmill-options": "other"}}, id="other options"),
        pytest.param({"chunk": "job.0.1", "skip_existing": False}, id="fewer images"),
    ],
)
def test_images_ahead_that_do_not_fit_are_dropped_and_done_again(ahead, asked):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
    ahead.wait(lambda: ahead.seen.count(Stage.RENDER) == 3)
    items = ITEMS[1:] if "skip_existing" in asked else ITEMS

    outcomes = ahead.pipeline.run(items, record=lambda outcome: None, **asked)

    assert len(outcomes) == len(ahead.written()) == len(items)
    assert ahead.network.calls == 3 + len(items)


def test_images_that_are_dropped_are_never_written(ahead):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
    ahead.wait(lambda: ahead.seen.count(Stage.RENDER) == 3)
    ahead.pipeline.drop_ahead()
    ahead.pipeline.close()

    assert ahead.written() == []


def test_images_that_are_dropped_while_they_start_are_not_written(ahead, monkeypatch):
    begun, dropped = threading.Semaphore(0), threading.Event()
    transform = Pipeline._transform

    def late(self, *args):
        begun.release()
        assert dropped.wait(WAIT)
        return transform(self, *args)

    monkeypatch.setattr(Pipeline, "_transform", late)
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
    assert all(begun.acquire(timeout=WAIT) for _ in range(3))
    ahead.pipeline.drop_ahead()
    dropped.set()
    ahead.pipeline.close()

    assert ahead.network.calls == 3 and ahead.written() == []


def test_closing_does_not_wait_for_a_chunk_that_never_comes(ahead):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})

    closing = threading.Thread(target=ahead.pipeline.close)
    closing.start()
    closing.join(WAIT)

    assert not closing.is_alive()
    ahead.pipeline.begin_ahead("job.0.2", ITEMS, {})  # does nothing after the end


def test_the_chunk_in_flight_is_not_started_again(ahead):
    """Its packet came late: Celery handed over the message before the prefetcher had read the packet."""
    begun = []

    def record(outcome):
        ahead.pipeline.begin_ahead("job.0.1", ITEMS, {})
        begun.append(outcome)

    ahead.pipeline.run(ITEMS, record=record, chunk="job.0.1")
    time.sleep(0.05)

    assert ahead.network.calls == len(begun) == 6


def test_images_ahead_run_behind_those_in_flight(ahead):
    order = []
    ahead.store.before_get = order.append

    def record(outcome):
        if outcome.index == 0:
            ahead.pipeline.begin_ahead("job.0.2", [work_item(index) for index in (3, 4)], {})

    ahead.pipeline.run(ITEMS[:3], record=record, chunk="job.0.1")
    ahead.wait(lambda: len(order) == 5)

    assert {int(url[-5]) for url in order[:3]} == {0, 1, 2}


def test_an_image_ahead_that_fails_is_recorded_once(ahead):
    gone = work_item(9, "gone.jpg")
    ahead.pipeline.begin_ahead("job.0.1", [gone], {})
    recorded = []

    ahead.pipeline.run([gone, *ITEMS[:2]], record=recorded.append, chunk="job.0.1")

    assert sorted((outcome.index, outcome.kind) for outcome in recorded) == [
        (0, OutcomeKind.OK),
        (1, OutcomeKind.OK),
        (9, OutcomeKind.FAILED),
    ]


@pytest.mark.parametrize("images", [1, 2, 6])
def test_nearly_done_is_called_once_when_the_last_images_start(ahead, images, monkeypatch):
    calls, called, put = [], threading.Event(), ahead.store.put

    def last_one_waits(place, *args, **options):
        if place == ITEMS[images - 1].outputs[OutputKind.MASK]:
            called.wait(WAIT)
        put(place, *args, **options)

    def nearly_done():
        calls.append(len(ahead.written()))
        called.set()

    monkeypatch.setattr(ahead.store, "put", last_one_waits)
    ahead.pipeline.run(ITEMS[:images], record=lambda outcome: None, nearly_done=nearly_done)

    assert len(calls) == 1
    assert calls[0] < images  # the last one was still to be written


def test_nearly_done_is_called_for_a_chunk_that_started_ahead_completely(ahead):
    ahead.pipeline.begin_ahead("job.0.1", ITEMS[:2], {})
    ahead.wait(lambda: ahead.seen.count(Stage.RENDER) == 2)
    calls = []

    ahead.pipeline.run(ITEMS[:2], record=lambda outcome: None, chunk="job.0.1", nearly_done=lambda: calls.append(1))

    assert calls == [1]
