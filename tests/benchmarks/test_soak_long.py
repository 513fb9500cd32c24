"""Memory, file handles, threads and Redis connections stay flat over 20,000 images in one worker process.

SOAK_BUNDLE=FOLDER runs BiRefNet-lite at 256 instead of the built-in network; SOAK_IMAGES=7200 makes that two hours at
one image per second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import Installation, make_bucket, new_installation
from support.soak import soak
from support.work_items import JPEG
from worker.contract.ledger.jobs import Ledger

IMAGES = int(os.environ.get("SOAK_IMAGES", "20000"))
BUNDLE = os.environ.get("SOAK_BUNDLE")
SECONDS = float(os.environ.get("SOAK_SECONDS", "10000"))


@pytest.fixture
def installation(standalone, tmp_path) -> Installation:
    found = new_installation(standalone)
    make_bucket(found)
    model = {"MASKMILL_MODEL__SOURCE": BUNDLE, "MASKMILL_MODEL__SIZE": "256"} if BUNDLE else {}
    cache = {"MASKMILL_MODEL__CACHE_DIR": str(tmp_path / "cache")}
    return Installation(found.environment | cache | model, found.settings, found.bucket)


@pytest.fixture
def ledger(installation) -> Iterator[Ledger]:
    with Ledger(installation.settings.redis) as ledger:
        yield ledger


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_grows(installation, ledger, tmp_path):
    run = soak(installation, ledger, JPEG, IMAGES, Path(tmp_path / "worker.log"), seconds=SECONDS)

    for sample in run.samples[:: max(1, len(run.samples) // 20)]:
        print(sample)  # noqa: T201 -- shown with -s
    assert run.grown(lambda use: use.threads) <= 0
    assert run.grown(lambda use: use.handles) <= 2
    assert run.grown(lambda use: use.connections) <= 2
    assert run.grown(lambda use: use.memory_mib) <= 12
