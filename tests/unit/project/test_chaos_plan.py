"""The plan of a chaos run is the same for the same seed, and contains enough faults."""

from __future__ import annotations

import itertools

from chaos.faults import KILL, WEIGHTS, plan


def test_the_same_seed_gives_the_same_plan():
    assert list(plan(1, 3, 7)) == list(plan(1, 3, 7))
    assert list(plan(1, 3, 7)) != list(plan(2, 3, 7))


def test_half_an_hour_has_all_kinds_and_enough_kills():
    faults = list(plan(20261124, 30, 7))

    assert {fault.kind for fault in faults} == set(WEIGHTS)
    assert sum(fault.kind in KILL for fault in faults) >= 150
    assert all(0 < fault.at < 30 * 60 for fault in faults)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(faults)]
    assert min(gaps) >= 1.5
