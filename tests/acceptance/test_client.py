"""The Python API with real workers, including a program that is killed and run again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap

import pytest
from PIL import Image

import producer.client
from producer import Client, JobStatus
from support import commands
from support.installation import Installation
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

PROGRAM = """
import sys, time
from producer import Client
with Client() as client:
    job = client.submit(sys.argv[1], sys.argv[2], job_key="nightly").job
    print(job, flush=True)
    if sys.argv[3:]:
        time.sleep(600)
    view = client.wait(job, timeout=60, poll_seconds=0.2)
    print(view.status.value, view.ok, view.failed, flush=True)
    print(*sorted(f"{o.key}={o.code or o.kind.value}" for o in client.results(job)))
"""


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (80, 60), (210, 210, 210)).save(folder / f"{index}.jpg")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


def start(installation: Installation, *args: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        env=commands.environment(installation.environment),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_program_that_was_killed_finds_its_job_when_it_runs_again(running_installation, photos):
    dest = f"s3://{running_installation.bucket}/nightly/"
    with start(running_installation, str(photos), dest, "and die") as killed:
        job = killed.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)

    with start(running_installation, str(photos), dest) as again:
        out, _ = again.communicate(timeout=90)

    assert again.returncode == 0
    assert out.splitlines() == [job, "finished 3 1", "0.jpg=ok 1.jpg=ok 2.jpg=ok broken.jpg=undecodable"]


def test_the_example_of_the_client_runs(running_installation, photos):
    """Only the name of the bucket differs from the docstring."""
    [indented] = re.findall(r"\n\n((?: {4}.*\n|\n)+)", producer.client.__doc__)
    program = textwrap.dedent(indented)
    assert "s3://shop/photos/" in program and "s3://shop/masks/" in program
    with ObjectStore(running_installation.settings.s3) as store:
        for photo in photos.iterdir():
            store.upload(photo, S3Url(running_installation.bucket, f"example/photos/{photo.name}"))

    with start(
        running_installation, program=program.replace("s3://shop/", f"s3://{running_installation.bucket}/example/")
    ) as run:
        out, _ = run.communicate(timeout=90)

    assert run.returncode == 0
    [counts, failure] = out.splitlines()
    assert counts == "4 images done, 1 failed"
    assert failure.startswith("broken.jpg undecodable ")


def test_the_command_and_the_client_see_one_job(running_installation, photos):
    dest = f"s3://{running_installation.bucket}/both/"
    with Client(running_installation.settings) as client:
        job = client.submit(photos, dest, job_key="both").job

        command = commands.run(
            "producer",
            *("submit", str(photos), dest, "--job-key", "both", "--json", "--wait"),
            settings=running_installation.environment,
        )

        assert (command.lines[0]["job"], command.lines[0]["joined"], command.code) == (job, True, 3)
        assert client.wait(job, timeout=10).status is JobStatus.FINISHED


def test_a_dry_run_counts_the_images_that_workers_would_skip(running_installation, photos):
    words = ("submit", str(photos), f"s3://{running_installation.bucket}/again/", "--output", "composite")

    def dry_run(*more: str) -> tuple[int | None, str]:
        done = commands.run("producer", *words, *more, "--dry-run", "--json", settings=running_installation.environment)
        assert done.code == 0, done.err
        return done.lines[0]["up_to_date"], done.lines[0]["up_to_date_by"]

    assert dry_run() == (0, "no image has all of its outputs under the destination")
    submitted = commands.run("producer", *words, "--json", "--wait", settings=running_installation.environment)
    assert submitted.lines[-1]["ok"] == 3, submitted.err
    Image.new("RGB", (80, 60), (10, 210, 210)).save(photos / "1.jpg")

    assert dry_run() == (2, "3 with outputs, all checked")
    assert dry_run("--background", "#ff0000") == (0, "3 with outputs, all checked")
    assert dry_run("--force") == (None, "not counted: --force processes all images")
    text = commands.run("producer", *words, "--dry-run", settings=running_installation.environment).out
    assert "up to date 2, which workers will skip: 3 with outputs, all checked" in text
    again = commands.run("producer", *words, "--json", "--wait", settings=running_installation.environment)
    assert (again.lines[-1]["skipped"], again.lines[-1]["ok"]) == (2, 1)  # as the dry run said
