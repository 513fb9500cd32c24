"""Images that crash or hang their worker process every time."""

from __future__ import annotations

import json
import os
from io import BytesIO

import pytest
from PIL import Image

from support import commands
from support.fault_run import run_concurrently
from support.fault_timing import IN_FLIGHT
from support.node_processes import memory_limit
from worker.contract.ledger.chunks import SPLIT_AFTER
from worker.contract.messages import JobPolicy
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore

pytestmark = pytest.mark.timeout(300)

LIMIT_SECONDS, LIMIT_MIB = 5, 400


def huge() -> bytes:
    """Return a PNG of 81 megapixels, below the limit for pictures: 243 MB decoded, 1 MB as a file."""
    data = BytesIO()
    Image.new("RGB", (9000, 9000), (90, 120, 30)).save(data, "PNG", compress_level=1)
    return data.getvalue()


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_poison_affects_no_other_image_and_names_its_cause(fault_run, control_run):
    attempts, chunk = 2, 8
    poison = {
        3: ("poison-segfault", None),
        chunk + 3: ("poison-hang", None),
        2 * chunk + 3: ("huge", huge()),
    }
    causes = {
        "poison-segfault": "signal 11 (SIGSEGV)",
        "poison-hang": f"no image ended within {LIMIT_SECONDS} s",
        "huge": "signal 9 (SIGKILL): out of memory",
    }
    settings = {
        "MASKMILL_WORKER__IMAGE_TIME_LIMIT_SECONDS": str(LIMIT_SECONDS),
        "MASKMILL_PLAN__PROCESSES": "2",
    }

    def with_safeguard() -> None:
        run = fault_run.configured(settings=settings)
        with run.node() as node, memory_limit(node, LIMIT_MIB):
            policy = JobPolicy(max_attempts=attempts)
            job = run.submit(3 * chunk, chunk=chunk, special=poison, policy=policy)
            account = run.settle(job)
            with run.ledger() as ledger:
                failures = ledger.failures(job)
        view = account.view
        assert (view.ok, view.dead, view.failed) == (3 * chunk - 3, 3, 0)

        reasons = {failure["key"].split("-", 1)[1].removesuffix(".png"): failure["message"] for failure in failures}
        assert {word: causes[word] in reason for word, reason in reasons.items()} == dict.fromkeys(causes, True), (
            reasons
        )
        with ObjectStore(run.installation.settings.s3) as store:
            folder = job_folder(view.options.dest, job)
            body, _ = store.get(folder / "failed.jsonl", max_bytes=10**6)
        dead = [json.loads(line) for line in body.splitlines()]
        assert sorted(line["key"] for line in dead) == sorted(failure["key"] for failure in failures)
        assert {line["kind"] for line in dead} == {"dead"}

        for key, times in account.executions.items():
            if any(word in key for word in causes):
                assert attempts <= times <= SPLIT_AFTER + attempts, key
        # Other images are in flight with poison only until the chunk runs one by one.
        assert account.repeated <= 3 * (SPLIT_AFTER * IN_FLIGHT + attempts)

    def without_isolation() -> None:
        run = control_run.configured(off=["careful"])
        with run.node():
            job = run.submit(1, chunk=1, special={0: ("poison-segfault", None)}, policy=JobPolicy())
            deaths = SPLIT_AFTER + JobPolicy().max_attempts
            commands.wait_for(lambda: run.faults.executions().total() > deaths, "poison to run again and again", 90)
            with run.ledger() as ledger:
                assert not ledger.view(job).ended

    run_concurrently(with_safeguard, without_isolation)
