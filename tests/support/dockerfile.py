"""Parse a Dockerfile and execute COPY and RUN of a stage without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    name: str
    arguments: str


def stages(path: Path) -> dict[str, list[Instruction]]:
    """Return the instructions of each stage; the key of a stage without a name is its number."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        keyword, _, arguments = line.strip().partition(" ")
        if keyword == "FROM":
            name = arguments.partition(" AS ")[2] or str(len(found) - 1)
            found[name] = []
        found[name].append(Instruction(keyword, " ".join(arguments.split())))
    return found


def pip_by(uv: Path, command: str) -> str:
    """Return a shell command with uv in place of each `pip install`."""
    pattern = r"(\S+)/bin/pip(?: --python (\S+))? install\b"
    return re.sub(pattern, lambda found: f"{uv} pip install --quiet --python {found[2] or found[1]}", command)


def last(instructions: list[Instruction], name: str) -> str | None:
    """Return the arguments of the last instruction with this name; None if there is none."""
    return next((i.arguments for i in reversed(instructions) if i.name == name), None)


def exec_form(text: str | None) -> list[str]:
    """Return the JSON list of ENTRYPOINT, CMD or HEALTHCHECK. Raises ValueError for the shell form."""
    return json.loads(text[text.index("[") :]) if text else []


class Root:
    """A folder in place of the root of a stage's file system.

    With `uv`, that program takes the place of pip: it downloads nothing twice and takes seconds. The library of
    the native kernels is then copied with the sources, so that building it again does nothing.
    """

    def __init__(self, folder: Path, context: Path, environment: dict[str, str], *, uv: Path | None = None) -> None:
        self.folder, self._context, self._environment, self._uv = folder, context, environment, uv
        self._here = folder

    def execute(self, instructions: list[Instruction]) -> None:
        """COPY from the build context, RUN with /bin/sh, WORKDIR and ENV. Skips instructions that change no files."""
        for instruction in instructions:
            method = getattr(self, f"_{instruction.name.lower()}", None)
            if method is not None:
                method(instruction.arguments)

    def _within(self, text: str) -> str:
        text = re.sub(r"(?<![\w.])/(opt|src|etc|usr/lib)\b", lambda found: f"{self.folder}/{found[1]}", text)
        return pip_by(self._uv, text) if self._uv else text

    def run(self, command: str) -> None:
        """Run a shell command that names places of this root."""
        self._run(command)

    def _workdir(self, arguments: str) -> None:
        self._here = Path(self._within(arguments))
        self._here.mkdir(parents=True, exist_ok=True)

    def _env(self, arguments: str) -> None:
        for pair in arguments.split():
            name, _, value = pair.partition("=")
            self._environment[name] = value

    def _copy(self, arguments: str) -> None:
        *sources, target = arguments.split()
        folder = self._here / target
        for source in sources:
            for found in self._context.glob(source):
                if found.is_dir():
                    ignore = shutil.ignore_patterns("__pycache__", *([] if self._uv else ["lib"]))
                    shutil.copytree(found, folder, ignore=ignore, dirs_exist_ok=True)
                else:
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(found, folder)

    def _run(self, arguments: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-ec", self._within(arguments)],
            cwd=self._here,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"RUN {arguments}\n{done.stdout[-4000:]}"
