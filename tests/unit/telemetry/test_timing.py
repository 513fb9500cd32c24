"""The times of the stages of an image."""

from __future__ import annotations

import pytest

from worker.telemetry.timing import Stage, StageTimes, timed


def test_the_measurements_of_an_image_are_reported_together():
    seen = []
    spent = StageTimes(lambda stage, wall, cpu: seen.append((stage, wall >= 0, cpu >= 0)))

    with spent.timed(Stage.FETCH):
        pass
    with spent.timed(Stage.RENDER):
        assert seen == []
    with spent.timed(Stage.RENDER):
        pass
    spent.report()
    spent.report()

    assert seen == [(Stage.FETCH, True, True), (Stage.RENDER, True, True), (Stage.RENDER, True, True)]
    assert set(spent.seconds()) == {"fetch", "render"}


def test_a_block_that_raises_is_measured():
    seen = []

    with pytest.raises(ValueError, match="broken"), timed(Stage.DECODE, lambda stage, *_: seen.append(stage)):
        raise ValueError("broken")

    assert seen == [Stage.DECODE]
