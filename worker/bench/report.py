"""The interface of all benchmark reports, and how a report is written and shown.

`worker bench X` writes X.json and, with matplotlib, X.png; it prints tables, remarks and lines for a README.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypedDict

from worker.bench.harness.machine import MachineFacts
from worker.contract.errors import SetupError

Row = tuple[str, ...]


class Document(TypedDict):
    """What the JSON documents of all benchmarks begin with."""

    schema_version: int
    benchmark: str
    machine: MachineFacts


class LoadAverages(TypedDict):
    """Load average of the machine at the start and at the end of a measurement."""

    load_average_before: float
    load_average_after: float


class Network(TypedDict):
    """The network of a measurement."""

    name: str
    size: int | str
    precision: str


class JpegFacts(TypedDict):
    """The picture of a measurement."""

    width: int
    height: int
    jpeg_bytes: int


@dataclass(frozen=True)
class Table:
    """Cells as text under their headings."""

    headings: Row
    rows: Sequence[Row]
    title: str = ""

    def as_markdown(self) -> Iterator[str]:
        """Yield the lines of the table in Markdown, without the title."""
        yield f"| {' | '.join(self.headings)} |"
        yield "|---" * len(self.headings) + "|"
        for row in self.rows:
            yield f"| {' | '.join(row)} |"


class BenchmarkReport(Protocol):
    """What one benchmark found."""

    name: ClassVar[str]
    """The sub-command of `worker bench`, and the stem of the files."""

    @property
    def document(self) -> Mapping[str, object]:
        """The JSON document, a `Document` with the figures of this benchmark."""

    def tables(self) -> list[Table]:
        """Return the tables to show."""

    def remarks(self) -> list[str]:
        """Return sentences that must be read together with the tables."""

    def readme_table(self) -> Table:
        """Return the headline figures, to be pasted into a README."""

    def draw(self, path: Path) -> Path:
        """Write the plot as PNG; return the path.

        Raises:
            SetupError: the file cannot be written.
        """


def counted(number: int, word: str) -> str:
    """Return a number with its noun: `1 stream`, `2 streams`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def check_writable(folder: Path) -> None:
    """Create the output folder and write to it, so that a long measurement does not fail at its end.

    Raises:
        SetupError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error


def write_json(document: Mapping[str, object], path: Path) -> Path:
    """Write a JSON document by atomic rename; return its path.

    Raises:
        SetupError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, ensure_ascii=False)
            file.write("\n")
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    return path
