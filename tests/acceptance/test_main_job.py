"""The main job: photographs from a folder or a prefix become masks of the same size, and the counts are correct."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from celery.result import AsyncResult
from PIL import Image

from support import commands
from support.edge_case_images import make
from support.installation import Installation
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.photographs import PHOTOGRAPHS, copy_photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    copy_photographs(folder)
    return folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def finished_job(running_installation: Installation, photographs: Path) -> dict:
    """Submit the photographs from a local folder and wait; the first and the last line of the output."""
    dest = f"s3://{running_installation.bucket}/masks/"
    done = commands.run(
        "producer",
        *("submit", str(photographs), dest, "--output", "both", "--wait", "--json", "--timeout", "90"),
        settings=running_installation.environment,
    )
    assert done.code == 0, done.err
    return {"submitted": done.lines[0], "last": done.lines[-1]}


def test_every_photograph_is_done(finished_job):
    assert finished_job["submitted"]["images"] == len(PHOTOGRAPHS)
    assert finished_job["last"]["status"] == "finished"
    assert finished_job["last"]["ok"] == finished_job["last"]["total"] == len(PHOTOGRAPHS)


def test_masks_and_cutouts_have_the_size_of_their_photographs(
    running_installation, photographs, finished_job, tmp_path
):
    job = finished_job["submitted"]["job"]

    done = commands.run("producer", "download", job, str(tmp_path / "out"), settings=running_installation.environment)

    assert done.code == 0, done.err
    for name in PHOTOGRAPHS:
        mask = tmp_path / "out" / "mask" / Path(name).with_suffix(".png")
        cutout = tmp_path / "out" / "cutout" / Path(name).with_suffix(".png")
        assert size_of(mask) == size_of(cutout) == size_of(photographs / name)
        with Image.open(mask) as image:
            assert image.mode == "L"
            low, high = image.getextrema()
            assert low < 64 and high > 192, name  # every photograph shows a subject and a background
        with Image.open(cutout) as image:
            assert image.mode == "RGBA"


def test_outputs_carry_their_provenance(running_installation, photographs, finished_job):
    with ObjectStore(running_installation.settings.s3) as store:
        source = S3Url.parse(finished_job["submitted"]["source"])
        original = store.head(source / "coffee.png")
        mask = store.head(S3Url(running_installation.bucket, "masks/mask/coffee.png"))

    assert mask.metadata["maskmill-source-etag"] == original.etag
    assert len(mask.metadata["maskmill-model"]) == 64
    assert mask.metadata["maskmill-options"]


def test_status_and_list_know_the_job(running_installation, finished_job):
    job = finished_job["submitted"]["job"]

    status = commands.run("producer", "status", job, settings=running_installation.environment)
    listing = commands.run("producer", "list", "--json", settings=running_installation.environment)

    assert status.code == 0 and f"{len(PHOTOGRAPHS)} ok" in status.out
    assert job in [line["job"] for line in listing.lines]


def test_celerys_result_backend_has_the_outcomes(running_installation, finished_job):
    app = make_celery(running_installation.settings)
    job, chunks = finished_job["submitted"]["job"], finished_job["submitted"]["chunks"]

    results = [AsyncResult(f"{job}.0.{chunk}", app=app).get(timeout=10) for chunk in range(chunks)]

    assert [kind for result in results for kind in result["outcomes"]] == ["ok"] * len(PHOTOGRAPHS)
    assert [failure for result in results for failure in result["failures"]] == []
    app.close()


def test_the_ledger_answers_for_a_chunk_whose_result_has_expired(running_installation, finished_job):
    app = make_celery(running_installation.settings)
    job = finished_job["submitted"]["job"]
    AsyncResult(f"{job}.0.0", app=app).forget()

    result = AsyncResult(f"{job}.0.0", app=app)

    assert result.state == "SUCCESS" and set(result.result["outcomes"]) == {"ok"}
    assert AsyncResult(f"{job}.0.999", app=app).state == "PENDING"
    assert AsyncResult("some-other-task", app=app).state == "PENDING"
    app.close()


def test_outputs_of_an_s3_prefix_keep_its_tree(running_installation, photographs, tmp_path):
    with ObjectStore(running_installation.settings.s3) as store:
        body = (photographs / "coffee.png").read_bytes()
        for key in ("in/a/coffee.png", "in/a/b/cup #1 100% ü.png", "in/readme.txt"):
            store.put(S3Url(running_installation.bucket, key), body, content_type="image/png")

    done = commands.run(
        "producer",
        *(
            "submit",
            f"s3://{running_installation.bucket}/in",
            f"s3://{running_installation.bucket}/out",
            "--wait",
            "--json",
        ),
        settings=running_installation.environment,
    )

    assert done.code == 0, done.err
    assert done.lines[0]["images"] == 2 and done.lines[0]["passed_over"] == 1
    with ObjectStore(running_installation.settings.s3) as store:
        keys = {item.key for item in store.list(S3Url(running_installation.bucket, "out/"))}
    assert {"a/coffee.png", "a/b/cup #1 100% ü.png"} == {key for key in keys if not key.startswith("_maskmill/")}


def test_a_key_list_without_sizes_is_accepted(running_installation, photographs, tmp_path):
    with ObjectStore(running_installation.settings.s3) as store:
        store.put(
            S3Url(running_installation.bucket, "listed/a/cup 1.png"),
            (photographs / "coffee.png").read_bytes(),
            content_type="image/png",
        )
    (tmp_path / "keys.txt").write_text("a/cup 1.png\ngone.jpg\n")

    done = commands.run(
        "producer",
        *("submit", f"s3://{running_installation.bucket}/listed/", f"s3://{running_installation.bucket}/from-list/"),
        *("--manifest", str(tmp_path / "keys.txt"), "--wait", "--json"),
        settings=running_installation.environment,
    )

    assert done.code == 3, done.err
    assert (done.lines[-1]["ok"], done.lines[-1]["failed"]) == (1, 1)
    with Ledger(running_installation.settings.redis) as ledger:
        [failure] = ledger.failures(done.lines[0]["job"])
    assert (failure["key"], failure["code"]) == ("gone.jpg", "missing")


def test_edge_case_images_get_the_expected_outcome(running_installation, tmp_path):
    folder = tmp_path / "edge-cases"
    folder.mkdir()
    expected = make(folder)

    done = commands.run(
        "producer",
        *("submit", str(folder), f"s3://{running_installation.bucket}/edge-cases/", "--wait", "--json"),
        settings=running_installation.environment,
    )

    assert done.code == 3, done.err  # some failed
    job = done.lines[0]["job"]
    with Ledger(running_installation.settings.redis) as ledger:
        failures = {failure["key"]: failure["code"] for failure in ledger.failures(job)}
        assert ledger.view(job).done == len(expected)
    assert failures == {name: item.code for name, item in expected.items() if item.outcome != "ok"}
    with ObjectStore(running_installation.settings.s3) as store:
        for name, item in expected.items():
            if item.outcome == "ok":
                key = f"edge-cases/{name.rpartition('.')[0]}.png"
                body, _ = store.get(S3Url(running_installation.bucket, key), max_bytes=1 << 26)
                with Image.open(io.BytesIO(body)) as mask:
                    assert (name, mask.size, mask.mode) == (name, item.size, "L")


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["submit", "s3://{bucket}/nothing/", "s3://{bucket}/o/"], 1, "no images under"),
        (["submit", "s3://no-such-bucket-here/x/", "s3://{bucket}/o/"], 1, "no-such-bucket-here"),
        (["submit", "/no/such/folder", "s3://{bucket}/o/"], 1, "neither an s3:// URL nor a folder"),
        (["submit", "s3://{bucket}/x/", "s3://{bucket}/x/o/"], 1, "overlap"),
        (["submit", "s3://{bucket}/x/", "ftp://o/"], 1, "s3://bucket/prefix/"),
        (["submit", "--output", "gif", "a", "b"], 1, "gif"),
        (["status", "no-such-job"], 1, "producer list"),
        (["download", "no-such-job", "x"], 1, "producer list"),
        (["no-such-command"], 1, "no-such-command"),
        (["sumbit"], 1, "Did you mean 'submit'"),
        (["submit", "--dryrun", "a", "s3://b/"], 1, "Did you mean '--dry-run'"),
    ],
)
def test_bad_input_is_one_clear_message(running_installation, args, code, text):
    done = commands.run(
        "producer",
        *(arg.format(bucket=running_installation.bucket) for arg in args),
        settings=running_installation.environment,
    )

    assert done.code == code
    assert text in done.err
    assert "Traceback" not in done.err


def test_two_inputs_with_one_output_key_are_refused(running_installation):
    with ObjectStore(running_installation.settings.s3) as store:
        for key in ("rivals/a.jpg", "rivals/a.png"):
            store.put(S3Url(running_installation.bucket, key), b"x", content_type="image/png")

    done = commands.run(
        "producer",
        *(
            "submit",
            f"s3://{running_installation.bucket}/rivals/",
            f"s3://{running_installation.bucket}/rivals-out/",
            "--wait",
        ),
        settings=running_installation.environment,
    )

    assert done.code == 1
    assert "'a.jpg'" in done.err and "'a.png'" in done.err
    with Ledger(running_installation.settings.redis) as ledger:
        assert not [view for view in ledger.jobs(100) if "rivals" in view.options.source.key]
