"""Celery's result backend fails alone: the queue and the ledger are well, only what Celery remembers is not."""

from __future__ import annotations

import time

from support.faults import IN_FLIGHT, Faults, progress
from support.proxy import Proxy
from support.shared_workers import BACK_OFF, Mistreated, installation_at, own_redis
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue import celery_app
from worker.contract.settings import Settings

IMAGES, CHUNK = 40, 4


def test_results_that_cannot_be_stored_are_waited_for(standalone, cache, tmp_path):
    """Every chunk that ends meanwhile waits in its process, and each process has its place back afterwards."""
    with own_redis(tmp_path) as server, Proxy(server.port) as line:
        installation = installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": "1"})
        backend = {"result_backend": backend_at(line.url(server.url), installation.settings)}
        faults = Faults(tmp_path, image_seconds=0.2, celery=backend)
        with Mistreated.start(installation, faults, tmp_path / "worker.log", processes=2) as under:
            before = under.processes()
            job = under.job(IMAGES, chunk=CHUNK)
            with Ledger(installation.settings.redis) as ledger:
                progress(ledger, job, 3)
                assert line.connections >= 1
                line.stall()
                time.sleep(2.5)
                reached = ledger.view(job).done
                time.sleep(1.5)
                assert ledger.view(job).done == reached < IMAGES, "nothing was in the way: the test proves nothing"
            line.heal()

            assert under.consuming(job) <= BACK_OFF
            account = under.settle(job)
            assert under.processes() == before, "a process ended and was started again"
        assert account.view.ok == IMAGES
        assert account.repeated <= 2 * (CHUNK + IN_FLIGHT)


def backend_at(url: str, settings: Settings) -> str:
    there = settings.redis.model_copy(update={"url": url})
    return f"{celery_app.__name__}:RedisBackend+{there.secret_url()}"
