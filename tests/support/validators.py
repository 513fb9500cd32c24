"""Programs that read what lies in `infra/` as the servers it is for would."""

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
    """Path of a program that only a distribution has; without it the test is skipped, and says how to get it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: apt-get install --no-install-recommends {package}")
    return found


def run(program: str | Path, *args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a validator, which must find nothing; a bare name is one of this installation's own programs.

    Returns:
        Everything that it printed.
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
