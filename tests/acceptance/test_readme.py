"""Every command of the README and of the pages beside it is run as it stands.

Only names of the reader's own places (bucket, job, bundle, checkpoint) are replaced, and sizes made small.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import save_file

from support import commands
from support.birefnet_weights import stand_in_state_dict
from support.fault_injection import SMALL_NETWORK
from worker.cli.bench import bench_command
from worker.contract.input_size import InputSize
from worker.convert.contrast.graph import contrast_model
from worker.convert.package import write_bundle

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / page
    for page in (
        "README.md",
        "producer/README.md",
        "worker/README.md",
        "worker/bench/README.md",
        "worker/bench/quality/README.md",
        "worker/bench/peers/README.md",
    )
]
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES if page.exists())
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
PROGRAMS = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "from producer import" in block]
LINES = [line.partition(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = list(dict.fromkeys(LINES))
UNTIL_STOPPED = {"worker start", "celery -A worker.app flower --address=127.0.0.1"}
BENCHMARKS = {line: found[1] for line in COMMANDS if (found := re.search(r"worker bench (\w+) (?!.*--help)", line))}
ONLY_READ = {"all", "quality", "peers", "submit"}
"""`all` runs the others one after the other, for minutes. `quality` and `peers` need packages of pictures or rembg's
environment; tests/integration/bench runs them with small exams and a stand-in for rembg, and `submit` with a thousand
keys."""
RUN_BENCHMARKS = {name: line for line, name in reversed(BENCHMARKS.items()) if name not in ONLY_READ}
"""The first command of each benchmark."""
MORE_BENCHMARKS = [line for line in BENCHMARKS if line not in RUN_BENCHMARKS.values()]
MAKE = {line for line in COMMANDS if line.startswith("make ")}
BEFORE = {
    "pause": lambda ledger, job: None,
    "resume": lambda ledger, job: ledger.pause(job),
    "cancel": lambda ledger, job: None,
    "recover": lambda ledger, job: ledger.forget(job),
}
"""What has happened to the reader's job before a command that steers it."""


def steers(line: str) -> bool:
    return line.split(maxsplit=1)[0] == "producer" and line.split()[1] in BEFORE


def test_the_readme_has_the_commands_people_need():
    first_words = {tuple(shlex.split(line)[:2]) for line in COMMANDS}
    expected = {("make", "demo"), ("make", "test"), ("worker", "check"), ("worker", "start"), ("producer", "submit")}
    expected |= {("maskmill", "cut"), ("maskmill", "submit")}

    assert expected <= first_words


@pytest.fixture(scope="module")
def reader(running_installation, tmp_path_factory) -> dict:
    """Somebody who follows the README: a folder with photographs, a bucket, a model, and settings exported."""
    home = tmp_path_factory.mktemp("reader")
    (home / "photos").mkdir()
    Image.new("RGB", (200, 150), (210, 210, 210)).save(home / "photos" / "shoe.jpg")
    (home / "keys.csv.gz").write_bytes(gzip.compress(b"key\nshoe.jpg\n"))
    bundle = home / "birefnet_lite"
    write_bundle(
        bundle,
        "stand_in",
        {(InputSize.square(320), "fp32"): contrast_model()},
        description="stand-in",
        license="none",
        source={},
    )
    checkpoint = home / "model.safetensors"
    save_file(stand_in_state_dict(), checkpoint)
    first = commands.run(
        "producer",
        *("submit", str(home / "photos"), f"s3://{running_installation.bucket}/photos/", "--wait", "--json"),
        settings=running_installation.environment,
    )
    assert first.code == 0, first.err
    own = {"BUCKET": running_installation.bucket, "JOB": first.lines[0]["job"]}
    # What the reader's `worker tune` chooses is nobody else's.
    own["MASKMILL_MODEL__CACHE_DIR"] = str(home / "cache")
    own["XDG_CACHE_HOME"] = str(home / "user-cache")
    return {
        "home": home,
        "bundle": bundle,
        "checkpoint": checkpoint,
        "job": first.lines[0]["job"],
        "photos": first.lines[0]["source"],
        "settings": running_installation.environment | own,
    }


SHORT = {
    "images": "--quick --rounds 1 --megapixels 0.1 --size 64",
    "model": "--quick --size 64",
    "pipeline": "--seconds 1 --rounds 1 --megapixels 0.1",
    "scale": "--seconds 1",
    "fleet": "--seconds 2 --nodes 1,10",
    "neighbour": "--quick",
}
"""What makes a benchmark short."""

QUICKER = {
    # Each of its dozen turns loads a network; tests/integration/bench loads the real ones once.
    "model": SMALL_NETWORK,
    "neighbour": {"MASKMILL_ENGINE__FEED_SECONDS": "0.1"},
}
"""Variables that make a benchmark short."""

ONE_LAYOUT = {"MASKMILL_PLAN__PROCESSES": "1", "MASKMILL_PLAN__STREAMS": "1"}
"""For `worker tune` with other options than the first time, when it tries all layouts."""

SMALLER = (
    ("--size 512 --size 1024", "--size 64"),
    ("--size 512", "--size 64"),
    ("--megapixels 2 --megapixels 12 --size 1024", "--megapixels 0.1 --size 64"),
    ("--nodes 10,100,1000", "--nodes 1,10"),
    ("MASKMILL_PLAN__PROCESSES=8", "MASKMILL_PLAN__PROCESSES=1"),
    ("MASKMILL_MODEL__SIZE=1024", "MASKMILL_MODEL__SIZE=320"),
    ("MASKMILL_MODEL__SIZE=512", "MASKMILL_MODEL__SIZE=320"),
)


def adapted(line: str, reader: dict) -> str:
    """Only what names the reader's own places is replaced, and sizes and times made small."""
    for long, small in SMALLER:
        line = line.replace(long, small)
    if benchmark := re.search(r"worker bench (\w+)", line):
        line = f"{line} {SHORT[benchmark[1]]}" if "--quick" not in line else line
    elif line.startswith("worker tune"):
        line = f"{line} --seconds 1 --rounds 1 --accept-load"
    line = line.replace("s3://$BUCKET/photos/", reader["photos"]).replace("--photo shoe.jpg", "--photo photos/shoe.jpg")
    if "--checkpoint" in line:
        line = re.sub(r"hf://ZhengPeng7/\S+", str(reader["checkpoint"]), line)
        if "--size" not in line:
            line += " --size 64 --precision fp32"
        line = line.replace("--checkpoint model.safetensors", f"--checkpoint {reader['checkpoint']}")
        if "convert" in line:  # stand-in weights mean nothing, so neither does their agreement
            line += " --force --calibration-images 4 --tile-order columns"  # the order of both published checkpoints
    return line.replace("/models/birefnet_lite", str(reader["bundle"]))


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in COMMANDS
        if line not in MAKE | UNTIL_STOPPED | {*MORE_BENCHMARKS} and "export" not in line and not steers(line)
    ],
)
@pytest.mark.timeout(400)
def test_a_command_of_the_readme_works(line, reader):
    quicker = ONE_LAYOUT if line.startswith("worker tune -") else QUICKER.get(BENCHMARKS.get(line, ""), {})
    done = subprocess.run(
        ["sh", "-c", adapted(line, reader)],
        env=commands.environment(reader["settings"] | quicker),
        cwd=reader["home"],
        capture_output=True,
        text=True,
        timeout=360,  # a benchmark starts its services and networks several times
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("line", MORE_BENCHMARKS)
def test_further_examples_of_benchmarks_are_read(line, tmp_path, monkeypatch):
    """The command line is parsed as it stands, with all its options; the benchmark does not run."""
    (tmp_path / "shoe.jpg").write_bytes(b"")
    (tmp_path / "model.safetensors").write_bytes(b"")
    words = shlex.split(line)
    name, *options = words[words.index("bench") + 1 :]

    context = bench_command.commands[name].make_context(name, options)

    assert context.params["output"] is None if "--build-exam" in line else context.params["output"].name == "bench"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_readme_works(program, reader):
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=commands.environment(reader["settings"]),
        cwd=reader["home"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done, 0 failed" in done.stdout and "shoe.jpg ok" in done.stdout


@pytest.mark.parametrize("line", [line for line in COMMANDS if steers(line)])
def test_a_command_that_steers_a_job_works(line, installation, ledger, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (200, 150), (210, 210, 210)).save(tmp_path / "photos" / "shoe.jpg")
    submitted = commands.run(
        "producer",
        "submit",
        "photos",
        f"s3://{installation.bucket}/masks/",
        "--json",
        settings=installation.environment,
    )
    job = submitted.lines[0]["job"]  # it stays as it is: no worker is there
    BEFORE[line.split()[1]](ledger, job)

    done = subprocess.run(
        ["sh", "-c", line],
        env=commands.environment(installation.environment | {"BUCKET": installation.bucket, "JOB": job}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_exports_of_the_readme_choose_the_model(reader):
    block = next(block for block in BLOCKS if "export" in block)

    done = subprocess.run(
        ["sh", "-ec", adapted(block, reader)],
        env=commands.environment(reader["settings"]),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0 and "stand_in 320 fp32" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("line", sorted(UNTIL_STOPPED))
def test_a_command_that_runs_until_stopped_runs_and_stops(line, reader, tmp_path):
    assert line in COMMANDS
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], env=commands.environment(reader["settings"]), stdout=file, stderr=file
        )
    ready = re.compile("event=model_loaded|Visit me at|Connected to redis")
    try:
        commands.wait_for(lambda: ready.search(log.read_text()), f"{line} to be ready", 80)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(40)
    assert code in (0, -signal.SIGTERM)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page, target)


def test_make_demo_works_also_with_a_bad_picture_and_after_an_earlier_run(cache, tmp_path):
    """With the environment that runs this test; the fresh set-up is what CI's own `make test` goes through."""
    assert {"make demo", "make test"} == MAKE
    venv, demo = Path(sys.prefix), tmp_path / "demo"
    (demo / "photographs").mkdir(parents=True)
    (demo / "photographs" / "bad.jpg").write_bytes(b"not a picture")
    (demo / "cutouts").mkdir()
    (demo / "cutouts" / "of-an-earlier-run.png").write_bytes(b"old")
    done = subprocess.run(
        ["make", "-C", str(ROOT), "-o", str(venv / ".demo"), "demo", f"VENV={venv}", f"DEMO={demo}"],
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
        | cache
        | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0 and "***" not in done.stderr, done.stdout + done.stderr
    assert "6 done, 1 failed" in done.stdout and "failed: bad.jpg: undecodable" in done.stdout
    assert f"pictures are in {demo / 'cutouts'}" in done.stdout
    names = {path.stem for path in (demo / "photographs").iterdir()} - {"bad"}
    assert {path.stem for path in (demo / "cutouts").glob("*.png")} == names


def test_the_settings_named_in_the_readme_exist(installation):
    done = commands.run("worker", "config", "--json", settings=installation.environment)
    known = {line["setting"] for line in done.lines} | {
        "MASKMILL_CONFIG",
        "MASKMILL_SECRETS_DIR",
        "MASKMILL_GROUP__NAME",
    }

    named = set(re.findall(r"MASKMILL_[A-Z0-9_]+[A-Z0-9]", TEXT))

    assert named <= known
