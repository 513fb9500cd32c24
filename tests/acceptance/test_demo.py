"""`worker demo` and `worker standalone` start everything, work, and leave no process behind, also after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from support import commands
from worker.standalone import ports
from worker.standalone.photographs import PHOTOGRAPHS


def small_photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        picture = Image.new("RGB", (320, 240), (200, 205, 210))
        picture.paste((180, 30, 40), (80 + 10 * number, 60, 220, 180))
        picture.save(folder / f"{number}.jpg")
    return folder


def using(state: Path) -> list[psutil.Process]:
    """Return the processes whose command line, environment or working directory contains this state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join([*process.cmdline(), *process.environ().values(), process.cwd()])
            if process.pid != os.getpid() and str(state) in text:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def assert_all_gone(state: Path) -> None:
    commands.wait_for(lambda: not using(state), f"all processes to end, left: {using(state)}", 15)
    if (state / "ports.json").exists():
        for name, port in json.loads((state / "ports.json").read_text()).items():
            assert ports.is_free(port), f"{name} still listens on {port}"


def test_the_demo_writes_masks_and_cutouts_twice(cache, tmp_path):
    state, output = tmp_path / "state", tmp_path / "masks"
    for _ in range(2):
        done = commands.run(
            "worker", "demo", "--state", str(state), "--output", str(output), settings=cache, timeout=110
        )

        assert done.code == 0, done.out + done.err
        assert str(output / "mask") in done.out and str(output / "cutout") in done.out
        assert {path.stem for path in (output / "mask").iterdir()} == {Path(name).stem for name in PHOTOGRAPHS}
        assert_all_gone(state)


def start_demo(state: Path, photos: Path, output: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the demo in a new process group, like a shell, so that Ctrl-C reaches every process of the group."""
    return subprocess.Popen(
        [str(commands.BIN / "worker"), "demo", "--state", str(state), "--photos", str(photos), "--output", str(output)],
        env=commands.environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def wait_for_end(process: subprocess.Popen[bytes], seconds: float) -> tuple[int, str]:
    """Return exit code and output."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output.decode()


def ended_before_our_code(code: int, output: str) -> bool:
    """Return whether Ctrl-C ended Python before it had a handler, or during its start, which exits with 1."""
    starting = "python: failed to set __main__.__loader__" in output or "Fatal Python error: init" in output
    return code == -signal.SIGINT or (code == 1 and starting and "worker/" not in output)


@pytest.mark.parametrize("moment", ["at once", "services start", "worker starts", "job runs"])
def test_ctrl_c_leaves_nothing_behind(moment, cache, tmp_path):
    state = tmp_path / "state"
    process = start_demo(state, small_photographs(tmp_path / "photos"), tmp_path / "masks", cache)
    reached = {
        "at once": lambda: using(state),
        "services start": (state / "ports.json").exists,
        "worker starts": (state / "logs" / "worker.log").exists,
        "job runs": lambda: any("submit" in " ".join(p.cmdline()) for p in commands.descendants(process.pid)),
    }
    commands.wait_for(reached[moment], moment)

    os.killpg(process.pid, signal.SIGINT)
    code, output = wait_for_end(process, 45)

    assert code == 130 or (moment == "at once" and ended_before_our_code(code, output)), output
    assert_all_gone(state)


def test_the_processes_of_a_killed_demo_end(cache, tmp_path):
    state = tmp_path / "state"
    process = start_demo(state, small_photographs(tmp_path / "photos"), tmp_path / "masks", cache)
    commands.wait_for((state / "logs" / "worker.log").exists, "the worker")

    process.kill()
    wait_for_end(process, 10)

    assert_all_gone(state)


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


def test_a_demo_whose_worker_cannot_start_ends_with_the_reason(cache, tmp_path):
    settings = cache | {"MASKMILL_MODEL__SOURCE": "/no/such/bundle", "MASKMILL_WORKER__RESTART_LIMIT": "1"}
    began = time.monotonic()
    photos = small_photographs(tmp_path / "photos")

    done = commands.run("worker", "demo", "--state", str(tmp_path / "s"), "--photos", str(photos), settings=settings)

    assert done.code == 1 and time.monotonic() - began < 90
    assert "/no/such/bundle" in done.err


def test_without_the_default_network_a_demo_runs_with_the_built_in_one_and_says_so(tmp_path):
    nothing = {"PIP_NO_INDEX": "1", "HTTPS_PROXY": "http://127.0.0.1:9", "PIP_CONFIG_FILE": "/dev/null"}
    settings = {"MASKMILL_MODEL__SOURCE": "default", "MASKMILL_MODEL__CACHE_DIR": str(tmp_path / "empty")} | nothing
    photos, output = small_photographs(tmp_path / "photos"), tmp_path / "masks"

    done = commands.run(
        *("worker", "demo", "--state", str(tmp_path / "s"), "--photos", str(photos), "--output", str(output)),
        settings=settings,
    )

    assert done.code == 0, done.out + done.err
    (said,) = [line for line in done.out.splitlines() if line.startswith("network: ")]
    assert "builtin:starter is used" in said and "`worker model fetch u2netp`" in said and "reason: " in said
    assert len(list((output / "mask").iterdir())) == 3
