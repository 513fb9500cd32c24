from __future__ import annotations

from types import SimpleNamespace

import pytest

from worker.contract.errors import BrokerUnavailable
from worker.contract.messages import Outcome, OutcomeKind
from worker.runner import outcome_buffer
from worker.runner.outcome_buffer import RECORD_SECONDS, OutcomeBuffer


@pytest.fixture
def clock(monkeypatch):
    """The time of the buffer, in a list of one number."""
    now = [100.0]
    monkeypatch.setattr(outcome_buffer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def outcome(index: int) -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=OutcomeKind.OK)


def buffer_of(**options) -> tuple[OutcomeBuffer, list[list[int]]]:
    """Return a buffer, and the image numbers of each of its calls."""
    calls: list[list[int]] = []
    return OutcomeBuffer(lambda found: calls.append([one.index for one in found]), most=4, **options), calls


def test_outcomes_of_a_slow_network_are_recorded_at_once(clock):
    buffer, calls = buffer_of()

    for index in range(3):
        buffer.add(outcome(index))
        assert buffer.poll() is None
        clock[0] += RECORD_SECONDS

    assert calls == [[0], [1], [2]]


def test_outcomes_of_a_fast_network_share_a_call(clock):
    buffer, calls = buffer_of()

    for index in range(6):
        buffer.add(outcome(index))
        clock[0] += RECORD_SECONDS * 0.34

    assert calls == [[0], [1, 2, 3]]

    buffer.flush()

    assert calls == [[0], [1, 2, 3], [4, 5]]


def test_no_more_outcomes_share_a_call_than_images_are_in_flight(clock):
    """A cancelled job learns it from the call, and starts images until then."""
    buffer, calls = buffer_of()

    for index in range(10):
        buffer.add(outcome(index))

    assert calls == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_an_outcome_that_waits_is_recorded_without_another_one(clock):
    buffer, calls = buffer_of()
    buffer.add(outcome(0))
    buffer.add(outcome(1))

    clock[0] += RECORD_SECONDS / 2
    assert (buffer.poll(), calls) == (pytest.approx(RECORD_SECONDS / 2), [[0]])
    clock[0] += RECORD_SECONDS / 2
    assert (buffer.poll(), calls) == (None, [[0], [1]])


def test_without_a_time_every_outcome_is_recorded_at_once(clock):
    buffer, calls = buffer_of(seconds=0.0)

    for index in range(3):
        buffer.add(outcome(index))

    assert calls == [[0], [1], [2]]


def test_outcomes_that_cannot_be_recorded_are_dropped(clock):
    """Their images run again; a second call would wait for Redis once more."""

    def record(found):
        raise BrokerUnavailable("gone")

    buffer = OutcomeBuffer(record, most=4)
    with pytest.raises(BrokerUnavailable):
        buffer.add(outcome(0))

    buffer.flush()
