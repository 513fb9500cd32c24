"""Every order of events within bounds, by the real scripts on a real server: two workers, two chunks of two images.

`test_ledger_model` goes far at random; this goes everywhere nearby. What must hold in every state and after every step
is in `support.ledger_states`: each image gets one outcome, the counters are the sums, a job ends once, a worker of an
earlier epoch changes nothing, no image is forgotten, and from every state the job can end without further faults.

    LEDGER_STATES=large pytest -s tests/integration/contract/ledger/test_ledger_exhaustive.py    takes many minutes
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.installation import new_installation
from support.ledger_states import Bounds, BrokenPromise, Explorer
from worker.contract.ledger import chunks
from worker.standalone.services import Standalone

LARGE = os.environ.get("LEDGER_STATES") == "large"

SMALL_BOUNDS = {
    "every image may fail": (Bounds(failing=(0, 3)), 2),
    "one fault": (Bounds(faults=1, failing=(0,)), 2),
    "one command": (Bounds(commands=1, failing=(0,)), 2),
    "one fault, images run one by one": (Bounds(faults=1), 1),
    "a failover": (Bounds(failovers=1, failing=(0,)), 2),
}
LARGE_BOUNDS = {
    "two faults": (Bounds(faults=2, failing=(0,)), 2),
    "two commands": (Bounds(commands=2, failing=(0,)), 2),
    "a fault and a command": (Bounds(faults=1, commands=1, failing=(0,)), 2),
    "two faults, images run one by one": (Bounds(faults=2), 0),
    "a failover and a command": (Bounds(failovers=1, commands=1), 2),
    "a failover and a fault": (Bounds(failovers=1, faults=1), 2),
}
"""Name -> bounds, and starts without progress after which images run one by one."""


@contextmanager
def explorer(standalone: Standalone, bounds: Bounds, max_attempts: int = 3) -> Iterator[Explorer]:
    found = Explorer(new_installation(standalone).settings.redis, bounds, max_attempts=max_attempts)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.timeout(20_000 if LARGE else 300)
@pytest.mark.parametrize("name", LARGE_BOUNDS if LARGE else SMALL_BOUNDS)
def test_what_must_hold_holds_in_every_state(standalone, monkeypatch, name):
    bounds, split_after = (SMALL_BOUNDS | LARGE_BOUNDS)[name]
    monkeypatch.setattr(chunks, "SPLIT_AFTER", split_after)

    with explorer(standalone, bounds, max_attempts=3 if split_after > 1 else 1) as found:
        found.explore()

    sys.stdout.write(f"{name}: {len(found.states):,} states, {found.steps:,} steps\n")
    assert {state.ledger.status for state in found.states} >= {"running", "closing", "finished"}
    assert len(found.states) > 100


@pytest.mark.parametrize(
    ("change", "bounds", "what"),
    [
        (
            ("record", "if job[2] ~= epoch then return {0, 0} end", ""),
            Bounds(faults=1, commands=2),
            "epoch 0 has changed",
        ),
        (("record", "(old > SKIPPED and new <= SKIPPED)", "old ~= new"), Bounds(1, failing=(0,)), "had the outcome"),
        (("record", "if finished == total then", "if finished >= total - 1 then"), Bounds(), "of 4 images are done"),
        (("take", "redis.call('ZADD', OUTSTANDING, time, chunk)", ""), Bounds(), "is lost"),
        (("settle", "if redis.call('HLEN', RUNNING) > 0 then return 0 end", ""), Bounds(0, 1), "has keys left"),
        (("close", "job[1] ~= 'closing' or", ""), Bounds(), "the job ended twice"),
        (("take_lost", "lost[#lost + 1] = chunk", ""), Bounds(faults=1), "the job never ends"),
        (("release", "if is_returned(chunk) then return 0 end", ""), Bounds(1, 1), "will be published again"),
    ],
    ids=["stale epoch", "final outcome", "end", "published", "settled", "ended", "reconciled", "given back"],
)
def test_control_a_script_with_a_fault_is_found(standalone, change, bounds, what):
    with explorer(standalone, bounds) as found:
        found.connection.change(*change)
        with pytest.raises(BrokenPromise, match=what):
            found.explore()
