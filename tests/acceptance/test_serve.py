"""`maskmill serve` (also `worker standalone`) starts everything, is found, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from PIL import Image

from support import commands
from support.local_services import assert_all_gone


def small_photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        picture = Image.new("RGB", (320, 240), (200, 205, 210))
        picture.paste((180, 30, 40), (80 + 10 * number, 60, 220, 180))
        picture.save(folder / f"{number}.jpg")
    return folder


def test_standalone_runs_a_command_with_its_settings(cache, tmp_path):
    state = tmp_path / "state"

    done = commands.run(
        "worker", "standalone", "--state", str(state), "--no-workers", "--", "producer", "list", settings=cache
    )

    assert done.code == 0 and "no jobs yet" in done.out, done.err
    assert_all_gone(state)


def test_standalone_prints_what_to_export_and_keeps_its_data(cache, tmp_path):
    state = tmp_path / "state"
    printed = []
    for _ in range(2):
        process = subprocess.Popen(
            [str(commands.BIN / "worker"), "standalone", "--state", str(state), "--no-workers"],
            env=commands.environment(cache) | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        exports = {}
        for line in process.stdout:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
            if "Ctrl-C" in line:
                break
        printed.append(exports)
        if len(printed) == 1:
            photos = small_photographs(tmp_path / "photos")
            submitted = commands.run("producer", "submit", str(photos), "s3://maskmill/x/", "--json", settings=exports)
            assert submitted.code == 0, submitted.err
        else:
            listing = commands.run("producer", "list", "--json", settings=exports)
            assert [line["total"] for line in listing.lines] == [3]
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()
        assert_all_gone(state)

    assert printed[0] == printed[1], "settings exported in a terminal stay valid"


def test_commands_find_the_services_in_the_default_folder_by_themselves(cache, tmp_path):
    user = cache | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    state = tmp_path / "cache" / "maskmill" / "local"
    photos = small_photographs(tmp_path / "photos")
    process = subprocess.Popen(
        [str(commands.BIN / "maskmill"), "serve", "--no-workers"],
        env=commands.environment(user) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    try:
        submitted = commands.run("producer", "submit", str(photos), "s3://maskmill/x/", settings=user, cwd=tmp_path)
        listing = commands.run("maskmill", "list", "--json", settings=user, cwd=tmp_path / "photos")
        elsewhere = user | {"MASKMILL_REDIS__URL": "redis://127.0.0.1:1/0"}
        other = commands.run("producer", "list", settings=elsewhere)
        without_workers = commands.run("maskmill", "cut", str(photos), str(tmp_path / "out"), settings=user)
        second = commands.run("maskmill", "serve", settings=user)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(30)
        process.stdout.close()

    assert code == 0 and submitted.code == 0, submitted.err
    assert [line["total"] for line in listing.lines] == [3]
    assert other.code == 1 and "127.0.0.1:1/0" in other.err, "services that the user names take precedence"
    assert without_workers.code == 1 and "runs on this machine without workers" in without_workers.err
    assert second.code == 1 and f"under process {process.pid}" in second.err, second.err
    assert_all_gone(state)
    stored = commands.run("maskmill", "list", "--json", settings=user)
    assert [line["total"] for line in stored.lines] == [3], stored.err
    assert_all_gone(state)
