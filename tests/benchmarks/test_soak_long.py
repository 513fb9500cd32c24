"""20,000 images through one worker process: memory, file handles, threads and Redis connections stay flat.

With BiRefNet-lite at 256 instead of the built-in network: SOAK_BUNDLE=FOLDER, and fewer images with
SOAK_IMAGES=7200 (two hours of one image a second).
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

    for look in run.looks[:: max(1, len(run.looks) // 20)]:
        print(look)  # noqa: T201 -- shown with -s
    assert run.grown(lambda look: look.threads) <= 0
    assert run.grown(lambda look: look.handles) <= 2
    assert run.grown(lambda look: look.connections) <= 2
    assert run.grown(lambda look: look.memory_mib) <= 12
