"""Recorded machines: `machine("xeon-w-2145")` unpacks a tree of kernel files and gives its root."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.cpu.kernel import parse_cpu_list

DATA = Path(__file__).parents[2] / "data" / "topologies"


def _unpack(file: Path, root: Path) -> Path:
    """Write the files of a machine below `root`; the README in the folder describes the format."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        template, _, content = line.partition("\t")
        for path in _paths(template):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content.replace("\\n", "\n").replace("\\t", "\t") + "\n", encoding="utf-8")
    return root


def _paths(template: str) -> list[str]:
    braces = re.search(r"\{([\d,:-]+)\}", template)
    if braces is None:
        return [template]
    cpus = sorted(parse_cpu_list(braces.group(1), template))
    return [template.replace(braces.group(0), str(cpu), 1) for cpu in cpus]


@pytest.fixture
def topologies() -> Path:
    return DATA


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str | Path], Path]:
    """Unpack the machine of that name, or of that file, and give its root."""

    def unpacked(name: str | Path) -> Path:
        file = name if isinstance(name, Path) else DATA / f"{name}.txt"
        return _unpack(file, tmp_path / "machines" / file.stem)

    return unpacked
