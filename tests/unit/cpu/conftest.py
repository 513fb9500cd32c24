"""Recorded machines: `machine("xeon-w-2145")` unpacks a tree of kernel files and returns its root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.machines import DATA, unpack


@pytest.fixture
def topologies() -> Path:
    return DATA


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str | Path], Path]:
    """Unpack the machine of that name or file, and return its root."""

    def unpacked(name: str | Path) -> Path:
        file = name if isinstance(name, Path) else DATA / f"{name}.txt"
        return unpack(file, tmp_path / "machines" / file.stem)

    return unpacked
