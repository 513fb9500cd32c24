"""Virtual environments for programs that maskmill is compared with; their packages would replace some of maskmill's.

cache/NAME/          made at the first use, with pinned packages
cache/NAME.lock      held while it is made, so that two benchmarks make it once
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.contract.errors import SetupError
from worker.processes.filelock import locked

_INSTALL_SECONDS = 1800
"""Time-out of a step."""


def interpreter(cache: Path, name: str, requirements: Sequence[str], modules: str) -> Path:
    """Return the Python of an environment; make the environment if it is missing.

    Args:
        cache: folder of all environments; created.
        name: of the folder; it should hold the version, so that another version gets another environment.
        requirements: what pip installs.
        modules: imported once, comma-separated: it shows that the packages work, and compiles what they compile.

    Raises:
        SetupError: it cannot be made; quotes the last line of the step that failed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    python, ready = folder / "bin/python", folder / "ready"
    with locked(cache / f"{name}.lock"):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, python, requirements, modules)
            ready.touch()
    return python


def _install(folder: Path, python: Path, requirements: Sequence[str], modules: str) -> None:
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", *requirements],
        [str(python), "-P", "-c", f"import {modules}"],
    )
    wanted = " ".join(requirements)
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout or "").strip().splitlines()
            raise SetupError(
                f"{wanted} cannot be installed into {folder}: {lines[-1] if lines else 'no error message'}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"installing {wanted} took over {_INSTALL_SECONDS} s; try again") from error
