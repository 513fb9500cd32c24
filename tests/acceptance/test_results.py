"""`producer results` on the command line: formats, filters, files, pipes."""

from __future__ import annotations

import csv
import io
import subprocess

import pytest
from PIL import Image
from pyarrow import parquet

from support import commands
from support.installation import Installation
from support.photographs import photograph


@pytest.fixture(scope="module")
def job(running_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of three files: an image with a subject, an image without one, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    photograph("coffee.png").save(folder / "cup.jpg")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(folder / "nothing.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    done = commands.run(
        "producer",
        *(
            "submit",
            str(folder),
            f"s3://{running_installation.bucket}/{folder.name}/",
            "--wait",
            "--json",
            "--timeout",
            "60",
        ),
        settings=running_installation.environment,
    )
    assert done.code == 3, done.err
    return done.lines[0]["job"]


def results(installation: Installation, job: str, *arguments: str, **variables: str) -> commands.Result:
    return commands.run("producer", "results", job, *arguments, settings=installation.environment | variables)


def test_every_image_has_a_line(running_installation, job):
    done = results(running_installation, job)

    assert (done.code, done.err) == (0, "")
    found = {line["key"]: line for line in done.lines}
    assert sorted(found) == ["broken.jpg", "cup.jpg", "nothing.png"]
    cup = found["cup.jpg"]
    assert (cup["outcome"], cup["outputs"]) == ("ok", {"mask": "cup.png"})
    assert {"fetch", "decode", "prepare", "infer", "render", "store"} <= set(cup["stages"])
    assert sum(cup["stages"].values()) == pytest.approx(cup["seconds"], abs=0.2)
    assert found["broken.jpg"]["code"] == "undecodable" and found["broken.jpg"]["finished_at"].endswith("Z")


def test_filters_by_option_and_by_variable(running_installation, job):
    def keys(*arguments: str, **variables: str) -> list[str]:
        done = results(running_installation, job, *arguments, **variables)
        assert done.code == 0, done.err
        return sorted(line["key"] for line in done.lines)

    assert keys("--outcome", "failed,dead") == ["broken.jpg"]
    assert keys(PRODUCER_RESULTS_OUTCOME="ok") == ["cup.jpg", "nothing.png"]
    assert keys("--flag", "empty") == keys("--needs-review") == ["nothing.png"]
    wrong = results(running_installation, job, "--flag", "ugly")
    assert wrong.code == 1 and "empty, full, soft, border" in wrong.err


def test_csv_and_parquet_files_have_the_same_rows(running_installation, job, tmp_path):
    table = tmp_path / "results.parquet"
    assert results(running_installation, job, "--format", "parquet", "--output", str(table)).code == 0
    printed = results(running_installation, job, "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert parquet.read_table(table)["key"].to_pylist() == [row["key"] for row in rows]
    assert {row["key"]: row["flag_empty"] for row in rows} == {
        "cup.jpg": "false",
        "nothing.png": "true",
        "broken.jpg": "",
    }
    nowhere = results(running_installation, job, "--format", "parquet")
    assert nowhere.code == 1 and "--output" in nowhere.err


def test_a_closed_pipe_prints_no_traceback(running_installation, job):
    line = f"{commands.BIN / 'producer'} results {job} | head -n 1"
    environment = commands.environment(running_installation.environment)
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=True)

    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_job_that_redis_does_not_know_is_found_by_its_destination(running_installation, job):
    status = commands.run("producer", "status", job, "--json", settings=running_installation.environment)
    dest = status.lines[0]["dest"]
    elsewhere = running_installation.environment | {"MASKMILL_REDIS__PREFIX": "another:"}

    lost = commands.run("producer", "results", job, settings=elsewhere)
    found = commands.run("producer", "results", job, "--dest", dest, settings=elsewhere)

    assert lost.code == 1 and "--dest" in lost.err
    assert len(found.lines) == 3
