"""Read the kernel's small text files below a given root, and parse the CPU lists in them.

This is the lowest layer of `worker.cpu`: `topology` and `cgroup` read files only through `Tree`, so that tests can pass
a recorded machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from worker.contract.errors import SetupError

_ITEM = re.compile(r"(\d+)(?:-(\d+)(?::(\d+)(?:/(\d+))?)?)?")
"""`7`, `4-7`, `9-15:2` or `0-31:2/8`."""


def parse_cpu_list(text: str, origin: str) -> frozenset[int]:
    """Parse a list of CPU numbers such as `0,2,4-7,9-15:2`; an empty text is an empty set.

    `a-b` is a range, `a-b:s` every s-th CPU of it (taskset(1)), `a-b:u/g` the first u of every g CPUs of it (the
    kernel's "List format", cpuset(7)).

    Args:
        text: the list; white space around it and around its items is allowed.
        origin: the file or setting that contains the list, for the error message.

    Raises:
        SetupError: the text is not a CPU list.
    """
    cpus: set[int] = set()
    for item in filter(None, (part.strip() for part in text.strip("\0 \n").split(","))):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise SetupError(f"{origin}: {item!r} is not part of a CPU list such as 0,2,4-7")
        first, last, step, group = (int(part) if part else None for part in match.groups())
        cpus.update(_expand(first or 0, last, step, group, origin))
    return frozenset(cpus)


def _expand(first: int, last: int | None, step: int | None, group: int | None, origin: str) -> Iterable[int]:
    if last is None:
        return (first,)
    if last < first or step == 0 or group == 0:
        raise SetupError(f"{origin}: the range {first}-{last} in a CPU list is reversed or has a step of 0")
    span = range(first, last + 1)
    if group is not None:
        return (cpu for cpu in span if (cpu - first) % group < (step or 1))
    return span[:: step or 1]


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Format CPUs as the kernel does: ascending, neighbours joined (`0,2,4-7`); `none` for the empty set."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "none"


class Tree:
    """The kernel's files below `root`, addressed by their absolute path on a real machine.

    `notes` collects sentences about what could not be read and what was assumed instead.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []

    def text(self, path: str) -> str | None:
        """Return the stripped content of a file, or None if it is missing or unreadable. The latter adds a note."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:  # no permission, or a controller that answers EINVAL or ENODEV
            self.notes.append(f"{path} cannot be read ({error.strerror}) and counts as missing.")
            return None

    def cpus(self, path: str) -> frozenset[int] | None:
        """Return the CPUs in a file that holds a CPU list, or None if the file is missing.

        Raises:
            SetupError: the content is not a CPU list.
        """
        text = self.text(path)
        return None if text is None else parse_cpu_list(text, path)

    def number(self, path: str) -> int | None:
        """Return the number in a file that holds one whole number, or None if the file is missing.

        Raises:
            SetupError: the content is not a whole number.
        """
        text = self.text(path)
        if text is None:
            return None
        try:
            return int(text)
        except ValueError as error:
            raise SetupError(f"{path}: {text!r} is not a whole number") from error

    def numbered(self, folder: str, stem: str) -> list[int]:
        """Return the numbers N of the entries `{stem}N` of a folder, ascending; empty if the folder is missing."""
        pattern = re.compile(rf"{re.escape(stem)}(\d+)")
        names = (pattern.fullmatch(entry.name) for entry in (self.root / folder.lstrip("/")).glob(f"{stem}*"))
        return sorted(int(match.group(1)) for match in names if match)
