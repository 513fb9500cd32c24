"""While the bucket of one job is down, a node does the other job, and then the first one without losing an image."""

from __future__ import annotations

import pytest

from support import commands
from support.edge_case_images import encoded, scene
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from worker.contract.job import JobStatus

IMAGES = 12


@pytest.mark.timeout(400)
def test_a_node_does_another_job_while_a_bucket_is_down(installation, ledger, worker_log):
    picture = encoded(scene(), "JPEG")
    with MisbehavingS3(Mode(refusals=[Refusal(503, "SlowDown", ("GET",), "in/", bucket="away")])) as server:
        for index in range(IMAGES):
            for bucket in ("away", "here"):
                server.put(f"{bucket}/in/{index}.jpg", picture)
        settings = installation.environment | {
            "MASKMILL_S3__ENDPOINT_URL": server.endpoint_url,
            "MASKMILL_S3__ACCESS_KEY_ID": "key",
            "MASKMILL_S3__SECRET_ACCESS_KEY": "secret",
            "MASKMILL_S3__ADDRESSING_STYLE": "path",
            "MASKMILL_S3__ATTEMPTS": "2",
            "MASKMILL_PLAN__PROCESSES": "1",
        }

        def submit(bucket: str) -> str:
            done = commands.run(
                *("producer", "submit", f"s3://{bucket}/in/", f"s3://{bucket}/out/", "--json"), settings=settings
            )
            assert done.code == 0, done.err
            return done.lines[0]["job"]

        with commands.workers(settings, worker_log):
            away = submit("away")
            commands.wait_for(lambda: ledger.view(away).store_retry_at, "the first failure", 120)
            here = submit("here")
            commands.wait_for(lambda: ledger.view(here).ended, "the other job to end", 120)
            held = ledger.view(away)

            server.mode.refusals = []
            commands.wait_for(lambda: ledger.view(away).ended, "the job to end", 200)

    assert ledger.view(here).ok == IMAGES
    assert (held.status, held.done, held.store_bucket) == (JobStatus.RUNNING, 0, "away")
    ended = ledger.view(away)
    assert (ended.status, ended.ok, ended.failed) == (JobStatus.FINISHED, IMAGES, 0)
