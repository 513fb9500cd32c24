"""A node whose keys for S3 come from the role of its instance works on while they expire, again and again."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from support import commands
from support.fault_injection import Faults
from support.fault_timing import FAST
from support.installation import Installation
from support.instance_role import InstanceRole
from support.misbehaving_s3 import MisbehavingS3, Mode
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger

IMAGES = 60


@pytest.fixture
def role() -> Iterator[InstanceRole]:
    """Keys that expire after seconds, although the service says an hour: botocore does not see them expire."""
    with InstanceRole(seconds=3.0, declared_seconds=3600.0) as role:
        yield role


@pytest.fixture
def server(role: InstanceRole) -> Iterator[MisbehavingS3]:
    with MisbehavingS3(Mode(accepts=role.accepts)) as server:
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), (210, 210, 210)).save(picture, "JPEG")
        for index in range(IMAGES):
            server.put(f"b/in/{index}.jpg", picture.getvalue())
        yield server


@pytest.fixture
def settings(installation: Installation, role: InstanceRole, server: MisbehavingS3) -> dict[str, str]:
    """Of a node and a producer without keys of their own."""
    keys = ("MASKMILL_S3__ACCESS_KEY_ID", "MASKMILL_S3__SECRET_ACCESS_KEY")
    own = {name: value for name, value in installation.environment.items() if name not in keys}
    more = {
        "MASKMILL_S3__ENDPOINT_URL": server.endpoint_url,
        "MASKMILL_S3__ADDRESSING_STYLE": "path",
        "MASKMILL_JOBS__CHUNK_IMAGES": "5",
    }
    return own | FAST | role.environment() | more


def submit(settings: Mapping[str, str], ledger: Ledger) -> str:
    done = commands.run("producer", "submit", "s3://b/in/", "s3://b/out/", settings=settings)
    assert done.code == 0, done.err
    [view] = ledger.jobs(1)
    return view.job


def slow_worker(tmp_path: Path) -> dict[str, str]:
    """Return the settings of workers that take 0.2 s more for each image."""
    return Faults(tmp_path / "faults", image_seconds=0.2).environment()


@pytest.mark.timeout(300)
def test_a_job_goes_on_while_its_keys_expire(settings, role, ledger, worker_log, tmp_path):
    with commands.workers(settings | slow_worker(tmp_path), worker_log):
        job = submit(settings, ledger)
        commands.wait_for(lambda: ledger.view(job).done >= 3, "the first images", 120)
        before = len(role.issued)
        commands.wait_for(lambda: ledger.view(job).ended, "the job to end", 120)

    view, log = ledger.view(job), worker_log.read_text()
    assert (view.status, view.ok, view.failed, view.total) == (JobStatus.FINISHED, IMAGES, 0, IMAGES), log
    assert len(role.issued) - before >= 2 and role.refused, "no key expired: the test proves nothing"
    assert "event=node_refused" not in log and "event=chunk_returned" not in log
    assert {status for _, _, status in role.requests} == {200}, "a question without a token, as in IMDSv1"


@pytest.mark.timeout(400)
def test_without_new_keys_the_node_hands_its_chunk_back_and_waits(settings, role, ledger, worker_log, tmp_path):
    """The control of the test above, and what an operator sees."""
    with commands.workers(settings | slow_worker(tmp_path), worker_log):
        job = submit(settings, ledger)
        commands.wait_for(lambda: ledger.view(job).done >= 3, "the first images", 120)
        role.frozen = True
        commands.wait_for(lambda: "event=node_refused" in worker_log.read_text(), "the refusal", 60)
        [line] = [line for line in worker_log.read_text().splitlines() if "event=node_refused" in line]
        assert "code=credentials_refused" in line and "ExpiredToken" in line
        commands.wait_for(lambda: "event=chunk_returned" in worker_log.read_text(), "the chunk to be returned", 20)
        assert not ledger.view(job).ended
        role.frozen = False
        commands.wait_for(lambda: ledger.view(job).ended, "the job to end", 200)

    view = ledger.view(job)
    assert (view.status, view.ok, view.failed, view.total) == (JobStatus.FINISHED, IMAGES, 0, IMAGES)
    assert "event=node_accepted" in worker_log.read_text()
