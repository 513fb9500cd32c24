"""Intervals of a node in a fault test, and the bounds within which lost work must return.

The intervals are about thirty times as short as by default, so that a test of a lost lease takes seconds.
"""

from __future__ import annotations

LEASE, SILENCE, RECONCILE, LEADER = 4, 3.0, 0.5, 2.0
SWEEP, MUTEX = 1.0, 2.0
"""As `worker.contract.queue.celery_app` derives them from the lease."""

FAST = {
    "MASKMILL_ENGINE__LEASE_SECONDS": str(LEASE),
    "MASKMILL_ENGINE__SILENCE_SECONDS": str(SILENCE),
    "MASKMILL_ENGINE__RECONCILE_SECONDS": str(RECONCILE),
    "MASKMILL_ENGINE__LEADER_SECONDS": str(LEADER),
    "MASKMILL_ENGINE__FEED_SECONDS": "0.1",
    "MASKMILL_PLAN__PROCESSES": "1",
    "MASKMILL_PLAN__STREAMS": "1",
    "MASKMILL_WORKER__IMAGES_AHEAD": "2",
    "MASKMILL_WORKER__RESTART_LIMIT": "1000",
    "MASKMILL_WORKER__STAGGER_SECONDS": "0",
}
"""Settings with short queue timings and one small worker process per node."""

IN_FLIGHT = 4
"""Images in flight in one process: one in the stream, one being written, two ahead (`worker.runner.process`)."""

SLACK = 40.0
"""Seconds added to a bound that includes the start of a process and loading a model, on a machine under load."""

SHORT_SLACK = 5.0
"""Seconds added to a bound that includes neither."""

RECONCILED_WITHIN = SILENCE + 2 * RECONCILE
LEASE_BACK_WITHIN = LEASE + SWEEP + MUTEX

SLOW = {"MASKMILL_ENGINE__LEASE_SECONDS": "120", "MASKMILL_ENGINE__SILENCE_SECONDS": "60"}
"""As by default, and longer than any wait of a test: what a failover loses must be found because of the failover."""
