"""Images that take their worker process along, each time: F5, F6 and what F7 is to an image."""

from __future__ import annotations

import json
import os
from io import BytesIO

import pytest
from PIL import Image

from support import commands
from support import faults as f
from worker.contract.ledger.jobs import SPLIT_AFTER
from worker.contract.messages import JobPolicy
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

pytestmark = pytest.mark.timeout(300)

LIMIT_SECONDS, LIMIT_MIB = 5, 400


def huge() -> bytes:
    """81 megapixels, below the limit for pictures: 243 MB when decoded, 1 MB as a file."""
    data = BytesIO()
    Image.new("RGB", (9000, 9000), (90, 120, 30)).save(data, "PNG", compress_level=1)
    return data.getvalue()


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_poison_costs_itself_and_says_what_it_did(scene, control):
    attempts, chunk = 2, 8
    poison = {
        3: ("poison-segfault", None),
        chunk + 3: ("poison-hang", None),
        2 * chunk + 3: ("huge", huge()),
    }
    said = {
        "poison-segfault": "signal 11 (SIGSEGV)",
        "poison-hang": f"no image ended within {LIMIT_SECONDS} s",
        "huge": "signal 9 (SIGKILL): out of memory",
    }
    settings = {
        "MASKMILL_WORKER__IMAGE_TIME_LIMIT_SECONDS": str(LIMIT_SECONDS),
        "MASKMILL_PLAN__PROCESSES": "2",
    }

    def play() -> None:
        here = scene.but(settings=settings)
        with here.node() as node, f.memory_limit(node, LIMIT_MIB):
            policy = JobPolicy(max_attempts=attempts)
            job = f.submit(here.installation, 3 * chunk, chunk=chunk, special=poison, policy=policy)
            account = here.settle(job)
            with here.ledger() as ledger:
                failures = ledger.failures(job)
        view = account.view
        assert (view.ok, view.dead, view.failed) == (3 * chunk - 3, 3, 0)

        reasons = {failure["key"].split("-", 1)[1].removesuffix(".png"): failure["message"] for failure in failures}
        assert {word: said[word] in reason for word, reason in reasons.items()} == dict.fromkeys(said, True), reasons
        with ObjectStore(here.installation.settings.s3) as store:
            folder = job_folder(view.options.dest, job)
            body, _ = store.get(folder / "failed.jsonl", max_bytes=10**6)
        dead = [json.loads(line) for line in body.splitlines()]
        assert sorted(line["key"] for line in dead) == sorted(failure["key"] for failure in failures)
        assert {line["kind"] for line in dead} == {"dead"}

        for key, times in account.executions.items():
            if any(word in key for word in said):
                assert attempts <= times <= SPLIT_AFTER + attempts, key
        # Neighbours are in work at the same time only until the chunk is run one by one.
        assert account.repeated <= 3 * (SPLIT_AFTER * f.IN_FLIGHT + attempts)

    def without_care() -> None:
        here = control.but(off=["careful"])
        with here.node():
            job = f.submit(here.installation, 1, chunk=1, special={0: ("poison-segfault", None)}, policy=JobPolicy())
            deaths = SPLIT_AFTER + JobPolicy().max_attempts
            commands.wait_for(lambda: here.faults.executions().total() > deaths, "poison to be tried for ever", 90)
            with here.ledger() as ledger:
                assert not ledger.view(job).ended

    f.side_by_side(play, without_care)
