"""Celery's result backend fails while the queue and the ledger work."""

from __future__ import annotations

import time

from support.fault_injection import Faults
from support.fault_timing import IN_FLIGHT
from support.proxy import Proxy
from support.shared_workers import BACK_OFF, SharedWorkers, installation_at, own_redis
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue import celery_app
from worker.contract.settings import Settings

IMAGES, CHUNK = 40, 4


def test_workers_wait_until_results_can_be_stored(standalone, cache, tmp_path):
    """Each chunk that ends meanwhile waits in its process, and all processes take chunks again afterwards."""
    with own_redis(tmp_path) as server, Proxy(server.port) as proxy:
        installation = installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": "1"})
        backend = {"result_backend": backend_at(proxy.url(server.url), installation.settings)}
        faults = Faults(tmp_path, image_seconds=0.2, celery=backend)
        with (
            SharedWorkers.start(installation, faults, tmp_path / "worker.log", processes=2) as workers,
            workers.surviving(),
            Ledger(installation.settings.redis) as ledger,
        ):
            job = workers.submit_and_start(IMAGES, chunk=CHUNK)
            assert proxy.connections >= 1
            proxy.stall()
            time.sleep(2.5)
            reached = ledger.view(job).done
            time.sleep(1.5)
            assert ledger.view(job).done == reached < IMAGES, "the job was not blocked: the test proves nothing"
            proxy.heal()

            assert workers.seconds_to_progress(job) <= BACK_OFF
            account = workers.settle(job)
        assert account.view.ok == IMAGES
        assert account.repeated <= 2 * (CHUNK + IN_FLIGHT)


def backend_at(url: str, settings: Settings) -> str:
    """Return the Celery setting for the result backend at another Redis URL."""
    redis = settings.redis.model_copy(update={"url": url})
    return f"{celery_app.__name__}:RedisBackend+{redis.secret_url()}"
