"""S3 in trouble while a node works: every image gets exactly one outcome, and no worker is stuck.

One node does a job after the other; the server in front of it misbehaves in another way during each. Times are short
settings of the test, and the pauses between tries are a tenth of the product's; what they are by default is in
`infra/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import commands
from support.edge_case_images import encoded, scene
from support.fault_injection import Faults
from support.installation import new_installation
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.jobs import Ledger

IMAGES = 12
KEYS = ("MASKMILL_S3__ACCESS_KEY_ID", "MASKMILL_S3__SECRET_ACCESS_KEY")

pytestmark = pytest.mark.timeout(400)


def write_keys(folder: Path, key: str) -> None:
    for name, text in zip(KEYS, (key, "secret"), strict=True):
        (folder / f".{name}").write_text(text)
        (folder / f".{name}").replace(folder / name)


@dataclass
class Place:
    """A server, a node, and the files with the keys of both."""

    server: MisbehavingS3
    settings: dict[str, str]
    ledger: Ledger
    secrets: Path
    count: int = 0

    def submit(self) -> str:
        """Submit the pictures to a new destination; the server must answer all requests but those for pictures."""
        self.count += 1
        done = commands.run(
            *("producer", "submit", "s3://b/in/", f"s3://b/out-{self.count}/", "--json"), settings=self.settings
        )
        assert done.code == 0, done.err
        return done.lines[0]["job"]

    def ended(self, job: str) -> JobView:
        commands.wait_for(lambda: self.ledger.view(job).ended, "the job to end", 200)
        return self.ledger.view(job)


@pytest.fixture(scope="module")
def place(standalone, tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("s3-trouble")
    installation, secrets = new_installation(standalone), folder / "secrets"
    secrets.mkdir()
    write_keys(secrets, "first")
    with MisbehavingS3() as server, Ledger(installation.settings.redis) as ledger:
        picture = encoded(scene(), "JPEG")
        for index in range(IMAGES):
            server.put(f"b/in/{index}.jpg", picture)
        settings = {name: value for name, value in installation.environment.items() if name not in KEYS} | {
            "MASKMILL_S3__ENDPOINT_URL": server.endpoint_url,
            "MASKMILL_S3__ADDRESSING_STYLE": "path",
            "MASKMILL_S3__ATTEMPTS": "2",
            "MASKMILL_S3__READ_TIMEOUT_SECONDS": "1",
            "MASKMILL_S3__CONNECT_TIMEOUT_SECONDS": "1",
            "MASKMILL_SECRETS_DIR": str(secrets),
            "MASKMILL_PLAN__PROCESSES": "1",
            "MASKMILL_JOBS__CHUNK_IMAGES": "4",
            "MASKMILL_ENGINE__RECONCILE_SECONDS": "0.5",
            "MASKMILL_ENGINE__FEED_SECONDS": "0.1",
        }
        faults = Faults(folder / "faults", store_pauses=0.1)
        with commands.workers(settings | faults.environment(), folder / "worker.log"):
            yield Place(server, settings, ledger, secrets)


@pytest.fixture(autouse=True)
def _healthy_again(place) -> Iterator[None]:
    yield
    place.server.mode = Mode()
    place.server.healed.set()
    place.server.healed.clear()


def assert_complete(view: JobView) -> None:
    assert (view.status, view.ok, view.failed, view.dead) == (JobStatus.FINISHED, IMAGES, 0, 0), view.codes


@pytest.mark.parametrize(
    "mode",
    [
        Mode(hang="in/"),
        Mode(refusals=[Refusal(503, "SlowDown", part="in/")]),
        Mode(refusals=[Refusal(500, "InternalError", part="in/")]),
        Mode(refusals=[Refusal(404, "NoSuchBucket", part="in/")]),
    ],
    ids=["it hangs", "it is throttled", "it answers 500", "the bucket is gone"],
)
def test_a_job_waits_for_s3_and_goes_on(place, mode):
    place.server.mode = mode
    job = place.submit()
    commands.wait_for(lambda: place.ledger.view(job).store_retry_at, "the failure to be noted", 60)

    place.server.mode = Mode()
    place.server.healed.set()

    assert_complete(place.ended(job))


def test_one_of_twenty_requests_fails(place):
    place.server.mode = Mode(fail_every=20)

    assert_complete(place.ended(place.submit()))


def test_one_object_that_always_hangs_is_given_up_and_the_others_are_done(place):
    place.server.mode = Mode(hang="in/3.jpg")

    view = place.ended(place.submit())

    assert (view.status, view.ok, view.failed) == (JobStatus.FINISHED, IMAGES - 1, 1)
    assert view.codes == {"store_failed": 1}


def test_keys_are_rotated_while_it_works(place):
    place.server.mode = Mode(hang="in/")
    job = place.submit()

    write_keys(place.secrets, "second")
    place.server.mode = Mode(refusals=[Refusal(403, "InvalidAccessKeyId", access_key="first")])
    place.server.healed.set()

    assert_complete(place.ended(job))
