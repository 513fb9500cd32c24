"""Enough of a Dockerfile to carry out a stage's COPY and RUN without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def stages(path: Path) -> dict[str, list[Instruction]]:
    """Instructions by stage; a stage without a name is called by its number."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            name = rest.partition(" AS ")[2] or str(len(found) - 1)
            found[name] = []
        found[name].append(Instruction(word, " ".join(rest.split())))
    return found


def last(instructions: list[Instruction], word: str) -> str | None:
    """What the last instruction of this kind says."""
    return next((i.rest for i in reversed(instructions) if i.word == word), None)


def exec_form(text: str | None) -> list[str]:
    """The JSON list of ENTRYPOINT, CMD or HEALTHCHECK; the shell form is refused."""
    return json.loads(text[text.index("[") :]) if text else []


class Root:
    """A folder that stands for the file system of a stage: its absolute paths begin here."""

    def __init__(self, folder: Path, context: Path, environment: dict[str, str]) -> None:
        self.folder, self._context, self._environment = folder, context, environment
        self._here = folder

    def carry_out(self, instructions: list[Instruction]) -> None:
        """COPY from the context, RUN with /bin/sh, WORKDIR and ENV; all else is not about files."""
        for instruction in instructions:
            method = getattr(self, f"_{instruction.word.lower()}", None)
            if method is not None:
                method(instruction.rest)

    def _within(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|src)\b", lambda found: f"{self.folder}/{found[1]}", text)

    def _workdir(self, rest: str) -> None:
        self._here = Path(self._within(rest))
        self._here.mkdir(parents=True, exist_ok=True)

    def _env(self, rest: str) -> None:
        for pair in rest.split():
            name, _, value = pair.partition("=")
            self._environment[name] = value

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        place = self._here / target
        for source in sources:
            for found in self._context.glob(source):
                if found.is_dir():
                    ignore = shutil.ignore_patterns("__pycache__", "lib")
                    shutil.copytree(found, place, ignore=ignore, dirs_exist_ok=True)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(found, place)

    def _run(self, rest: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-ec", self._within(rest)],
            cwd=self._here,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout[-4000:]}"
