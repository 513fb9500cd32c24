"""The plan of a chaos run is the same for the same seed, and contains enough faults."""

from __future__ import annotations

import itertools

import pytest

from chaos.faults import KILL, plan, weights

KINDS = weights(sentinels=True)


def test_the_same_seed_gives_the_same_plan():
    assert list(plan(1, 3, 7, KINDS)) == list(plan(1, 3, 7, KINDS))
    assert list(plan(1, 3, 7, KINDS)) != list(plan(2, 3, 7, KINDS))


@pytest.mark.parametrize("sentinels", [False, True])
def test_an_hour_has_all_kinds_and_enough_kills(sentinels):
    kinds = weights(sentinels=sentinels)

    faults = list(plan(20261124, 60, 7, kinds))

    assert {fault.kind for fault in faults} == set(kinds)
    assert sum(fault.kind in KILL for fault in faults) >= 250
    assert all(0 < fault.at < 60 * 60 for fault in faults)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(faults)]
    assert min(gaps) >= 1.5
