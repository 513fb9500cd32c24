"""A node that S3 refuses takes no work, costs no image, and goes on by itself when S3 accepts it."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from support import commands
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from worker.contract.job import JobStatus
from worker.contract.ledger.fleet import Fleet


@pytest.mark.timeout(400)
def test_a_node_with_a_refused_key_leaves_the_work_until_the_key_is_accepted(installation, ledger, worker_log):
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (210, 210, 210)).save(picture, "JPEG")
    refused = Refusal(403, "InvalidAccessKeyId", access_key="unknown")
    with MisbehavingS3(Mode(refusals=[refused])) as server:
        for index in range(4):
            server.put(f"b/in/{index}.jpg", picture.getvalue())
        # The producer has another key than the node.
        producer = installation.environment | {
            "MASKMILL_S3__ENDPOINT_URL": server.endpoint_url,
            "MASKMILL_S3__ACCESS_KEY_ID": "known",
            "MASKMILL_S3__SECRET_ACCESS_KEY": "secret",
            "MASKMILL_S3__ADDRESSING_STYLE": "path",
        }
        node = producer | {"MASKMILL_S3__ACCESS_KEY_ID": "unknown", "MASKMILL_PLAN__PROCESSES": "1"}
        with commands.workers(node, worker_log):
            commands.wait_for(lambda: "event=node_refused" in worker_log.read_text(), "the refusal", 120)
            done = commands.run("producer", "submit", "s3://b/in/", "s3://b/out/", settings=producer)
            assert done.code == 0, done.err
            [view] = ledger.jobs(1)
            commands.wait_for(lambda: not Fleet(ledger.connection).live(), "the node to be not live", 60)
            assert ledger.view(view.job).done == 0

            server.mode.refusals = []
            commands.wait_for(lambda: ledger.view(view.job).ended, "the job to end", 200)

    ended = ledger.view(view.job)
    assert (ended.status, ended.ok, ended.failed) == (JobStatus.FINISHED, 4, 0)
    assert "event=node_accepted" in worker_log.read_text()
