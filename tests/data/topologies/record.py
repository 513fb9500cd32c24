"""Print this machine in the format of this folder: exactly the files that the parser reads.

    python tests/data/topologies/record.py > tests/data/topologies/NAME.txt

Check the result before you share it: it contains the names of control groups.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from worker.cpu import topology
from worker.cpu.kernel import Tree

SEEN: dict[str, str] = {}


class Recorder(Tree):
    """Records every file that it reads."""

    def text(self, path: str) -> str | None:
        content = super().text(path)
        if content is not None:
            SEEN[path] = content
        return content


def shortened(path: str, content: str) -> str:
    """Return the content without the lines that the parser does not read."""
    keep = {
        "/proc/cpuinfo": ("processor\t: 0", "model name", "flags"),
        "/proc/meminfo": ("MemTotal", "MemAvailable"),
        "/proc/self/status": ("Cpus_allowed_list",),
    }
    lines = content.splitlines()
    if path == "/proc/self/mountinfo":
        lines = [line for line in lines if " - cgroup" in line]
    elif path == "/proc/cpuinfo":  # of the first processor only
        lines = [line for line in content.partition("\n\n")[0].splitlines() if line.startswith(keep[path])]
    elif path in keep:
        lines = [line for line in lines if line.startswith(keep[path])]
    return "\\n".join(lines).replace("\t", "\\t")


def main() -> None:
    with mock.patch.object(topology, "Tree", Recorder):
        topology.read(Path("/"))
    for path, content in sorted(SEEN.items()):
        sys.stdout.write(f"{path.lstrip('/')}\t{shortened(path, content)}\n")


if __name__ == "__main__":
    main()
