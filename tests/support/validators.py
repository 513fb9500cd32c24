"""Run programs that validate the files in `infra/`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.commands import BIN

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def need(name: str, package: str) -> str:
    """Return the path of a program from a Linux distribution; without it skip the test and name its package."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found


def run(program: str | Path, *args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a validator and assert that it finds nothing. A bare name is a program of this virtual environment.

    Returns:
        Its output.
    """
    path = BIN / program if "/" not in str(program) else program
    done = subprocess.run(
        [str(path), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
