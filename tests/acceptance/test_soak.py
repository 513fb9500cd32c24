"""The short version of `tests/benchmarks/test_soak_long.py`: nothing grows with the number of images."""

from __future__ import annotations

import pytest

from support.soak import soak
from support.work_items import JPEG
from worker.bench.fleet import CONNECTIONS_PER_NODE, CONNECTIONS_PER_PROCESS


@pytest.mark.timeout(180)
def test_memory_handles_threads_and_connections_stay_flat(installation, ledger, worker_log):
    run = soak(installation, ledger, JPEG, 500, worker_log, seconds=150)

    assert len(run.samples) >= 9
    assert run.grown(lambda look: look.threads) <= 0
    assert run.grown(lambda look: look.handles) <= 2
    assert run.grown(lambda look: look.connections) <= 2  # those of the test
    assert run.grown(lambda look: look.memory_mib) <= 12
    # What `worker bench fleet` counts with.
    most = max(look.connections for look in run.samples) - run.connections_before
    assert 8 <= most <= CONNECTIONS_PER_PROCESS + CONNECTIONS_PER_NODE + 1, most
