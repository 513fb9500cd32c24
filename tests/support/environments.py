"""Empty virtual environments for tests of the installation. uv links the files of its cache, so one takes seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.commands import BIN, Result

ROOT = Path(__file__).parents[2]
_OLDEST, _NEWEST = (3, 11), (3, 13)
_FOLDERS = (Path(sys.base_prefix) / "bin", Path("/usr/bin"), Path("/usr/local/bin"))


# Prints command -> what it lacks, for every command of every console script; fails if one cannot be imported.
_HELP = """
import importlib, importlib.metadata, json, sys
import click

def walk(command, context):
    text = command.get_help(context)
    short = command.short_help or ""
    yield context.command_path, short.removeprefix("(needs ").removesuffix(")") if short.startswith("(needs ") else ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            yield from walk(found, click.Context(found, info_name=name, parent=context))

found = {}
for script in importlib.metadata.distribution("maskmill").entry_points:
    module = importlib.import_module(script.module)
    group = next(value for value in vars(module).values() if isinstance(value, click.Group))
    found.update(walk(group, click.Context(group, info_name=script.name, **group.context_settings)))
print(json.dumps(found))
"""


@cache
def uv() -> Path:
    """Return the path of uv, which dev.lock contains."""
    found = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert found, "uv is not installed: make .venv/.dev"
    return Path(found)


@cache
def pythons() -> dict[str, Path]:
    """Return version -> program of every CPython that maskmill supports here: this one, the system's, and pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser()) / "versions"
    candidates = [folder / f"python3.{minor}" for folder in _FOLDERS for minor in range(_OLDEST[1], _NEWEST[1] + 1)]
    candidates += pyenv.glob("*/bin/python3")
    found: dict[str, Path] = {}
    for program in filter(Path.exists, candidates):
        asked = "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.implementation.name)"
        said = subprocess.run([program, "-I", "-c", asked], capture_output=True, text=True, check=False).stdout.split()
        if said[1:] == ["cpython"] and _OLDEST <= tuple(map(int, said[0].split(".")))[:2] <= _NEWEST:
            found.setdefault(said[0], program)
    return found


THIS_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"


def oldest_of_each() -> dict[str, Path]:
    """Return the oldest Python of 3.11, 3.12 and 3.13 that is here: its standard library has the least."""
    chosen: dict[str, str] = {}
    for version in sorted(pythons(), key=lambda text: tuple(map(int, text.split(".")))):
        chosen.setdefault(version.rpartition(".")[0], version)
    return {version: pythons()[version] for version in chosen.values()}


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path
    python: Path | None = None
    """The Python that it was made from, if this module made it."""
    bytecode: Path | None = None
    """Where its programs keep bytecode; beside the sources if None."""

    @classmethod
    def new(cls, folder: Path, python: Path, bytecode: Path | None = None) -> Environment:
        """Create an empty one for this Python, without pip.

        An environment in the same place as an earlier one, with the same folder of bytecode, compiles only modules that
        the earlier one did not have: uv links one file into both, so size and time of the source are the same.
        """
        _uv("venv", "--python", python, folder)
        return cls(folder, python, bytecode)

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.folder / "bin"

    def install(self, *arguments: str | Path) -> None:
        """Run `pip install`, and assert that what is installed then has all its dependencies."""
        _uv("pip", "install", "--python", self.bin / "python", *arguments)
        _uv("pip", "check", "--python", self.bin / "python")

    def resolve(self, *arguments: str | Path) -> None:
        """Run `pip install` up to the point where it would download: the index has all that is needed, with hashes."""
        _uv("pip", "install", "--dry-run", "--python", self.bin / "python", *arguments)

    def run(
        self, *command: str | Path, settings: Mapping[str, str] | None = None, cwd: Path | None = None, code: int = 0
    ) -> Result:
        """Run one of its programs with only its programs and the system's on PATH; assert the exit code."""
        program, *arguments = command
        done = subprocess.run(
            [self.bin / program, *arguments],
            env=self.variables(settings or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            cwd=cwd,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return Result(done.returncode, done.stdout, done.stderr)

    def variables(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the variables for programs of this environment."""
        kept = {name: value for name, value in os.environ.items() if not re.match(r"PYTHON|VIRTUAL_ENV|PYENV", name)}
        if self.bytecode is not None:
            kept["PYTHONPYCACHEPREFIX"] = str(self.bytecode)
        return {**kept, **settings, "PATH": f"{self.bin}{os.pathsep}/usr/bin:/bin:/usr/sbin", "COLUMNS": "200"}


def missing_of(environment: Environment) -> dict[str, str]:
    """Show the help of every command, and return those that cannot run with what they need."""
    for script in ("maskmill", "producer", "worker"):
        assert environment.run(script, "--help").out.startswith(f"Usage: {script} ")
    kept = () if environment.bytecode is None else ("-X", f"pycache_prefix={environment.bytecode}")
    found = json.loads(environment.run("python", "-I", *kept, "-c", _HELP).out)
    assert len(found) > 20
    return {command: needs for command, needs in found.items() if needs}


def submit(environment: Environment, photos: Path, dest: str, settings: dict[str, str]) -> str:
    """Run a job to its end and return its id."""
    done = environment.run("producer", "submit", photos, dest, "--wait", "--json", settings=settings)
    assert done.lines[-1]["ok"] == 1, done.out
    return str(done.lines[-1]["job"])


@dataclass(frozen=True)
class Built:
    """The two files of a release."""

    wheel: Path
    sdist: Path

    def with_extras(self, extras: str) -> str:
        """Return the requirement of the wheel with extras."""
        return f"maskmill[{extras}] @ {self.wheel.as_uri()}" if extras else f"maskmill @ {self.wheel.as_uri()}"


def build(project: Path, folder: Path, *targets: str) -> None:
    arguments = [part for target in targets for part in ("--target", target)]
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *arguments, "--directory", folder],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _uv(*arguments: str | Path) -> None:
    done = subprocess.run(
        [uv(), "--quiet", "--no-python-downloads", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"uv {' '.join(map(str, arguments))}\n{done.stderr[-4000:]}"
