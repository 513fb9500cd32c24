"""Recorded machines: trees of kernel files, unpacked from `tests/data/topologies`."""

from __future__ import annotations

import re
from pathlib import Path

from worker.cpu.kernel import parse_cpu_list

DATA = Path(__file__).parents[1] / "data" / "topologies"


def unpack(file: Path, root: Path) -> Path:
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
