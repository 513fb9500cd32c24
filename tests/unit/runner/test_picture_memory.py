"""Images in flight share the memory for pictures: large ones wait, but not for ever; what never fits is refused."""

from __future__ import annotations

import threading
import time

import pytest

from support.edge_case_images import encoded, scene
from support.fakes import FakeNetwork
from support.work_items import LIMITS, numbered, store_of, work_item
from worker.contract.messages import OutcomeKind
from worker.images.decode import decode
from worker.images.memory import Header, picture_peak
from worker.runner.picture_memory import PictureMemory
from worker.runner.pipeline import Pipeline, _Run

MIB = 1024 * 1024
WAIT = 10.0


def nothing() -> None:
    pass


def started(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_without_a_limit_nothing_waits():
    memory = PictureMemory(None)

    assert memory.can_ever_take(10**15) and memory.try_take(10**15)
    memory.take(10**15, nothing)
    memory.give_back(10**15)


def test_what_does_not_fit_waits_for_what_was_given_back():
    memory = PictureMemory(100)
    assert memory.try_take(60 * MIB) and not memory.try_take(60 * MIB)
    waits = threading.Event()
    thread = started(lambda: memory.take(60 * MIB, waits.set))
    assert waits.wait(WAIT)
    assert not memory.try_take(1)  # behind the one that waits, though it would fit
    memory.give_back(60 * MIB)
    thread.join(WAIT)

    assert not thread.is_alive() and memory.try_take(40 * MIB) and not memory.try_take(1)


def test_those_that_wait_keep_their_order():
    memory, order = PictureMemory(100), []
    memory.try_take(100 * MIB)

    def take(name: str, mib: int, queued: threading.Event) -> None:
        memory.take(mib * MIB, queued.set)
        order.append(name)
        memory.give_back(mib * MIB)

    threads = []
    for name, mib in (("large", 100), ("small", 1)):
        queued = threading.Event()
        threads.append(started(lambda name=name, mib=mib, queued=queued: take(name, mib, queued)))
        assert queued.wait(WAIT)
    memory.give_back(100 * MIB)
    for thread in threads:
        thread.join(WAIT)

    assert order == ["large", "small"]


@pytest.fixture
def pipeline_of():
    made = []

    def make(store, mib, network=None):
        made.append(Pipeline(store, network or FakeNetwork(), "sha", LIMITS, in_flight=3, memory=PictureMemory(mib)))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


LARGE = encoded(scene((1600, 1200)), "PNG")
"""Estimated at 19 MiB."""


def test_a_picture_that_needs_more_than_the_process_has_is_too_large(pipeline_of):
    store = store_of(small=encoded(scene(), "PNG"), large=LARGE)

    small, large = sorted(
        pipeline_of(store, 16).run([work_item(0, "small.jpg"), work_item(1, "large.jpg")], record=lambda outcome: None),
        key=lambda outcome: outcome.index,
    )

    assert small.kind is OutcomeKind.OK
    assert (large.kind, large.code) == (OutcomeKind.FAILED, "too_large")
    assert "1600 x 1200 pixels as PNG need about" in large.message
    assert "more than the 16 MiB of a process; increase MASKMILL_LIMITS__PICTURE_MEMORY_MIB" in large.message


class Watched(PictureMemory):
    """Notes the most that was taken at one time."""

    def __init__(self, mib: int) -> None:
        super().__init__(mib)
        self.most = 0

    def _take(self, size: int) -> None:
        super()._take(size)
        self.most = max(self.most, self._total - self._free)


def peak_of(data: bytes) -> int:
    found: list[Header] = []
    decode(data, LIMITS, on_header=found.append)
    return picture_peak(found[0], work_item(0).options)


def test_pictures_that_fit_one_by_one_are_done_one_by_one():
    memory = Watched(peak_of(LARGE) // MIB + 1)
    pipeline = Pipeline(
        store_of(**{str(number): LARGE for number in range(6)}),
        FakeNetwork(),
        "sha",
        LIMITS,
        in_flight=3,
        memory=memory,
    )
    try:
        outcomes = pipeline.run([work_item(number) for number in range(6)], record=lambda outcome: None)
    finally:
        pipeline.close()

    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.OK] * 6
    assert memory.most == peak_of(LARGE) and memory._free == memory._total


def test_images_ahead_make_room_for_the_current_ones():
    """They hold memory until their chunk comes, and it comes only after the current images."""
    memory, store = PictureMemory(64), numbered(3)
    store.objects["s3://in/large.jpg"] = LARGE
    pipeline = Pipeline(store, FakeNetwork(), "sha", LIMITS, in_flight=3, memory=memory)
    try:
        pipeline.begin_ahead("job.0.1", [work_item(0), work_item(1)], {})
        deadline = time.monotonic() + WAIT
        while memory._free == memory._total:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.2)  # both have taken what they need
        memory.try_take(memory._free - peak_of(LARGE) + 1)  # now the large one fits only without those ahead
        found = []
        run = _Run({}, skip_existing=False, granted=True)
        thread = started(lambda: found.append(pipeline._one(run, work_item(2, "large.jpg"))))
        thread.join(WAIT)

        assert not thread.is_alive() and found[0].kind is OutcomeKind.OK
    finally:
        pipeline.drop_ahead()
        pipeline.close()


def test_an_image_ahead_that_does_not_fit_waits_for_its_chunk(pipeline_of):
    store = store_of(**{str(number): LARGE for number in range(3)})
    pipeline = pipeline_of(store, peak_of(LARGE) // MIB + 1)
    pipeline.begin_ahead("job.0.1", [work_item(number) for number in range(3)], {})

    outcomes = pipeline.run([work_item(number) for number in range(3)], record=lambda outcome: None, chunk="job.0.1")

    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.OK] * 3


def test_an_image_ahead_that_does_not_fit_ends_with_its_chunk(pipeline_of):
    store = store_of(**{str(number): LARGE for number in range(3)})
    network = FakeNetwork()
    pipeline = pipeline_of(store, peak_of(LARGE) // MIB + 1, network)
    pipeline.begin_ahead("job.0.1", [work_item(number) for number in range(3)], {})
    pipeline.drop_ahead()
    pipeline.close()

    assert network.calls <= 1 and not [url for url in store.objects if url.startswith("s3://out/")]


def test_an_image_whose_wait_fails_leaves_the_queue():
    memory = PictureMemory(100)
    memory.try_take(100 * MIB)

    def fails() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.take(1, fails)
    memory.give_back(100 * MIB)

    assert memory.try_take(100 * MIB)
