"""Sources, plans, the confirmation of large jobs, help and completion on the command line. No worker runs."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess

import pytest
from click.testing import CliRunner

import producer.cli
from support import commands
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.manifest import read

KEYS = ["a.jpg", "d/b.png", "d/c.jpg", "notes.txt"]


@pytest.fixture
def photo_bucket(installation, store, tmp_path):
    """A bucket with photographs under `in/`, and the same in a local folder."""
    for key in KEYS:
        store.put(S3Url(installation.bucket, f"in/{key}"), b"12345", content_type="image/jpeg")
        (tmp_path / "photos" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / key).write_bytes(b"12345")
    (tmp_path / "keys.txt").write_text("d/c.jpg\na.jpg\n")
    (tmp_path / "keys.csv.gz").write_bytes(gzip.compress(b"key,size\nd/c.jpg,5\na.jpg,5\n"))
    (tmp_path / "keys.jsonl").write_text(f'"d/c.jpg"\n{{"url": "s3://{installation.bucket}/in/a.jpg"}}\n')
    (tmp_path / "files.txt").write_text("d/c.jpg\na.jpg\n")
    rows = gzip.compress("".join(f'"{installation.bucket}","in/{key}","5"\n' for key in ("d/c.jpg", "a.jpg")).encode())
    store.put(S3Url(installation.bucket, "inv/data.csv.gz"), rows, content_type="application/gzip")
    facts = {
        "sourceBucket": installation.bucket,
        "destinationBucket": f"arn:aws:s3:::{installation.bucket}",
        "fileFormat": "CSV",
    }
    facts |= {"fileSchema": "Bucket, Key, Size", "files": [{"key": "inv/data.csv.gz"}]}
    store.put(
        S3Url(installation.bucket, "inv/manifest.json"), json.dumps(facts).encode(), content_type="application/json"
    )
    return installation


def submit(installation, *args, stdin="", code=0, **variables):
    """Run `producer submit ARGS --json`; return its JSON lines and standard error."""
    words = [word.format(bucket=installation.bucket) for word in args]
    done = subprocess.run(
        [str(commands.BIN / "producer"), "submit", *words, "--json"],
        env=commands.environment(installation.environment | variables),
        input=stdin.format(bucket=installation.bucket),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def submit_in_process(installation, *args):
    """Do what `submit` does, in the process of the test; return the JSON lines."""
    words = [word.format(bucket=installation.bucket) for word in args]
    done = CliRunner().invoke(
        producer.cli.cli,
        ["submit", *words, "--json"],
        prog_name="producer",
        env=installation.environment,
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


OUT = "s3://{bucket}/out/"
BOTH = ["d/c.jpg", "a.jpg"]
URLS = ["in/d/c.jpg", "in/a.jpg"]
SOURCES = {
    "prefix": (["s3://{bucket}/in", OUT], "", KEYS[:3]),
    "glob": (["s3://{bucket}/in/**/*.jpg", OUT], "", ["a.jpg", "d/c.jpg"]),
    "object": (["s3://{bucket}/in/d/c.jpg", OUT], "", ["c.jpg"]),
    "folder": (["photos", OUT], "", KEYS[:3]),
    "files": (["photos/d/c.jpg", "photos/a.jpg", OUT], "", BOTH),
    "local glob": (["photos/**/*.jpg", OUT], "", ["a.jpg", "d/c.jpg"]),
    "txt": (["s3://{bucket}/in/", OUT, "--manifest", "keys.txt"], "", BOTH),
    "csv": (["s3://{bucket}/in/", OUT, "--manifest", "keys.csv.gz"], "", BOTH),
    "jsonl": (["s3://{bucket}/in/", OUT, "--manifest", "keys.jsonl"], "", BOTH),
    "inventory": (["s3://{bucket}/in/", OUT, "--manifest", "s3://{bucket}/inv/manifest.json"], "", BOTH),
    "list of files": (["photos", OUT, "--manifest", "files.txt"], "", BOTH),
    "list on standard input": (["s3://{bucket}/in/", OUT, "--manifest", "-"], "d/c.jpg\na.jpg\n", BOTH),
    "URLs on standard input": (
        ["-", OUT],
        "s3://{bucket}/in/d/c.jpg\ns3://{bucket}/in/a.jpg\n",
        ["in/d/c.jpg", "in/a.jpg"],
    ),
    "JSON on standard input": (["-", OUT], '{{"key": "s3://{bucket}/in/a.jpg", "size": 5}}\n', ["in/a.jpg"]),
    "paths on standard input": (["-", OUT], "photos/d/c.jpg\n./photos/a.jpg\n", ["photos/d/c.jpg", "photos/a.jpg"]),
}
BY_THE_PROGRAM = {"prefix", "folder", *(kind for kind, (_, stdin, _) in SOURCES.items() if stdin)}
"""Arguments and standard input as a user gives them; a process for each of the other kinds would only take a second."""


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_becomes_a_job(photo_bucket, store, kind):
    args, stdin, keys = SOURCES[kind]

    if kind in BY_THE_PROGRAM:
        [line], _ = submit(photo_bucket, *args, stdin=stdin)
    else:
        [line] = submit_in_process(photo_bucket, *args)

    assert line["images"] == len(keys)
    entries = list(read(store, S3Url(photo_bucket.bucket, "out/"), line["job"], len(keys)))
    assert [entry.key for entry in entries] == keys
    source = S3Url.parse(line["source"])
    assert all(store.get(source / key, max_bytes=9)[0] == b"12345" for key in keys), "workers must be able to read it"


def test_filters_and_variables(photo_bucket):
    [line], _ = submit(
        photo_bucket,
        "s3://{bucket}/in/",
        OUT,
        "--dry-run",
        PRODUCER_SUBMIT_INCLUDE="*.jpg *.png",
        PRODUCER_SUBMIT_EXCLUDE="d/b*",
    )
    assert (line["images"], line["skipped"]) == (2, {"not_an_image": 1, "excluded": 1})

    flags = ["--any-suffix", "--min-size", "1k", "--newer-than", "7d", "--sample", "50%", "--seed", "3", "--limit", "5"]
    _, err = submit(photo_bucket, "s3://{bucket}/in/", OUT, "--dry-run", *flags, code=1)
    assert "are left: 4 too small" in err


def test_a_dry_run_reports_and_changes_nothing(photo_bucket, store):
    before = list(store.list(S3Url(photo_bucket.bucket)))

    [line], _ = submit(photo_bucket, "photos", OUT, "--dry-run")
    text = commands.run(
        "producer",
        "submit",
        "photos",
        f"s3://{photo_bucket.bucket}/out/",
        "--dry-run",
        settings=photo_bucket.environment,
    )

    assert (line["images"], line["bytes"], line["collisions"], line["up_to_date"]) == (3, 15, 0, 0)
    assert line["outputs"][0] == {"key": "a.jpg", "output": "a.png"}
    assert (line["live_processes"], line["expected_seconds"]) == (0, None)
    for words in ("3, 15 bytes", "1 without an image suffix", "a.jpg -> s3://", "`worker start`", "--sample 100"):
        assert words in text.out
    assert list(store.list(S3Url(photo_bucket.bucket))) == before
    with Ledger(photo_bucket.settings.redis) as ledger:
        assert ledger.jobs(9) == []


def test_a_dry_run_names_collisions(photo_bucket, store):
    store.put(S3Url(photo_bucket.bucket, "in/d/b.webp"), b"1", content_type="image/webp")

    [line], err = submit(photo_bucket, "s3://{bucket}/in/", OUT, "--dry-run", code=1)

    assert line["collisions"] == 1 and "d/b.png" in line["collision_examples"][0]
    assert "output_collision" in err


def test_a_large_job_requires_confirmation(photo_bucket):
    large = ["s3://{bucket}/in/", OUT, "--confirm-over", "2"]

    _, err = submit(photo_bucket, *large, code=1)
    assert "3 images are more than --confirm-over 2" in err and "--yes" in err

    [line], _ = submit(photo_bucket, *large, "--yes")
    assert line["images"] == 3


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_a_terminal_asks_for_confirmation(photo_bucket, answer, code):
    terminal, program_side = pty.openpty()
    words = [
        "submit",
        f"s3://{photo_bucket.bucket}/in/",
        f"s3://{photo_bucket.bucket}/out/",
        "--confirm-over",
        "2",
        "--json",
    ]
    os.write(terminal, answer.encode())
    process = subprocess.Popen(
        [str(commands.BIN / "producer"), *words],
        env=commands.environment(photo_bucket.environment),
        stdin=program_side,
        stderr=program_side,
        stdout=subprocess.PIPE,
    )
    os.close(program_side)
    out, _ = process.communicate(timeout=60)
    question = os.read(terminal, 65536).decode()
    os.close(terminal)

    assert "Submit 3 images (15 bytes" in question
    assert process.returncode == code and bool(out) == (code == 0)


def test_a_wait_that_times_out_exits_with_6(photo_bucket, ledger):
    lines, _ = submit(photo_bucket, "s3://{bucket}/in/", OUT, "--wait", "--timeout", "0.2", code=6)  # no worker runs

    assert lines[-1]["status"] == "running" and ledger.view(lines[0]["job"]).status == "running"


def test_a_second_upload_sends_only_what_changed(photo_bucket, store, tmp_path):
    [first], _ = submit(photo_bucket, "photos", OUT)
    uploaded = S3Url.parse(first["source"])
    before = {item.key: store.head(uploaded / item.key).modified for item in store.list(uploaded)}
    (tmp_path / "photos/a.jpg").write_bytes(b"another")
    os.utime(tmp_path / "photos/a.jpg", (1, 1))

    [again], _ = submit(photo_bucket, "photos", OUT)

    assert again["source"] == first["source"] and set(before) == {"a.jpg", "d/b.png", "d/c.jpg"}
    assert store.get(uploaded / "a.jpg", max_bytes=9)[0] == b"another"
    assert {key: store.head(uploaded / key).modified for key in ("d/b.png", "d/c.jpg")} == {
        key: before[key] for key in ("d/b.png", "d/c.jpg")
    }


def test_odd_input_is_refused_in_one_line_with_its_place(photo_bucket, tmp_path):
    os.mkfifo(tmp_path / "photos/pipe.jpg")
    (tmp_path / "photos/passwd.jpg").symlink_to("/etc/passwd")
    (tmp_path / "odd.jsonl").write_text('"a.jpg"\n{"key": "d/c.jpg", "size": 1e999}\n')
    (tmp_path / "deep.jsonl").write_text("[" * 60_000)

    [plan], _ = submit(photo_bucket, "photos", OUT, "--dry-run")
    assert plan["images"] == 3 and plan["skipped"] == {"not_an_image": 1, "not_a_file": 1, "outside_link": 1}
    for name, message in {"odd": "line 2: inf is not the size", "deep": "line 1: not JSON"}.items():
        _, error = submit(photo_bucket, "s3://{bucket}/in/", OUT, "--manifest", f"{name}.jsonl", code=1)
        assert message in error and len(error.splitlines()) == 1
    _, error = submit(photo_bucket, "s3://{bucket}/in/", OUT, "--job-key", os.fsdecode(b"\xff"), code=1)
    assert "not valid Unicode text" in error


@pytest.mark.parametrize("command", ["producer", "worker"])
def test_completion(command):
    for shell, word in (("bash", "complete"), ("zsh", "compdef"), ("fish", "complete --no-files")):
        done = commands.run(command, "completion", shell, settings={})
        assert done.code == 0 and word in done.out and f"_{command.upper()}_COMPLETE" in done.out

    asked = {f"_{command.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": f"{command} comp", "COMP_CWORD": "1"}
    assert commands.run(command, settings=asked).out.splitlines() == ["plain,completion"]


def test_the_help_of_every_command_has_examples_and_variables():
    for name, text in commands.help_of_commands("producer").items():
        options = text.partition("Options:\n")[2].partition("\n\n")[0]
        assert f"  producer {name}" in text.partition("Example")[2], name
        flags = [line.split()[0] for line in options.splitlines() if line.startswith("  --")]
        for flag in flags:
            assert f"PRODUCER_{name}_{flag[2:]}".upper().replace("-", "_") in text, flag
