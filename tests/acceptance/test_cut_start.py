"""`maskmill cut` while it starts: Ctrl-C at any moment, and a default network that cannot be had."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from support import commands
from support.local_services import assert_all_gone, using


@pytest.fixture
def user(cache, tmp_path) -> dict[str, str]:
    return cache | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def services_folder(tmp_path) -> Path:
    return tmp_path / "cache" / "maskmill" / "local"


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        picture = Image.new("RGB", (320, 240), (200, 205, 210))
        picture.paste((180, 30, 40), (80 + 10 * number, 60, 220, 180))
        picture.save(folder / f"{number}.jpg")
    return folder


def ended_before_our_code(code: int, output: str) -> bool:
    """Return whether Ctrl-C ended Python before it had a handler, or during its start, which exits with 1."""
    starting = "python: failed to set __main__.__loader__" in output or "Fatal Python error: init" in output
    in_imports = "KeyboardInterrupt" in output and "importlib" in output  # before the command sets its handlers
    return code == -signal.SIGINT or (code in (1, 130) and (starting or in_imports))


@pytest.mark.parametrize("moment", ["at once", "services start", "worker starts", "job runs"])
def test_ctrl_c_leaves_nothing_behind(moment, user, photos, services_folder, tmp_path):
    process = subprocess.Popen(
        [str(commands.BIN / "maskmill"), "cut", str(photos), str(tmp_path / "out")],
        env=commands.environment(user),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    reached = {
        "at once": lambda: using(services_folder),
        "services start": (services_folder / "ports.json").exists,
        "worker starts": (services_folder / "logs" / "worker.log").exists,
        "job runs": lambda: list((services_folder / "runs").glob("*")),
    }
    commands.wait_for(reached[moment], moment)

    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=45)[0].decode()

    assert process.returncode == 130 or (moment == "at once" and ended_before_our_code(process.returncode, output))
    if moment != "at once":
        assert "to go on, run the same command again" in output and "Traceback" not in output, output
    assert_all_gone(services_folder)


def test_without_the_default_network_it_runs_with_the_built_in_one_and_says_so(photos, tmp_path):
    nothing = {"PIP_NO_INDEX": "1", "HTTPS_PROXY": "http://127.0.0.1:9", "PIP_CONFIG_FILE": "/dev/null"}
    settings = nothing | {"MASKMILL_MODEL__SOURCE": "default", "XDG_CACHE_HOME": str(tmp_path / "empty")}
    output = tmp_path / "masks"

    done = commands.run("maskmill", "cut", str(photos), str(output), "--output", "mask", settings=settings)

    assert done.code == 0, done.out + done.err
    (said,) = [line for line in done.err.splitlines() if line.startswith("network: ")]
    assert "builtin:starter is used" in said and "`worker model fetch u2netp`" in said and "reason: " in said
    assert len(list(output.glob("*.png"))) == 3
