"""The report of `worker bench images --memory`: tables and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, PALE, pyplot, save
from worker.bench.report import Document, Row, Table

SCHEMA_VERSION = 1

_HEADINGS = ("input", "output", "file", "peak", "estimate")


class MemoryRow(TypedDict):
    """One case, in bytes per pixel of the picture."""

    input: str
    output: str
    """Empty: decoding alone, at full size."""
    bytes_per_pixel: float
    """Measured, with the file."""
    estimated_bytes_per_pixel: float
    """What admission counts with."""
    file_bytes_per_pixel: float


class ImageMemoryDocument(Document):
    """The JSON document."""

    pillow: str | None
    megapixels: float
    results: list[MemoryRow]


@dataclass(frozen=True)
class ImageMemoryReport:
    """See `report.BenchmarkReport`."""

    document: ImageMemoryDocument
    name: ClassVar[str] = "image-memory"

    def tables(self) -> list[Table]:
        """Return one table of all cases."""
        return [Table(_HEADINGS, [_cells(row) for row in self.document["results"]], self._title())]

    def remarks(self) -> list[str]:
        """Name the cases whose estimate is too low."""
        low = [row for row in self.document["results"] if row["bytes_per_pixel"] > row["estimated_bytes_per_pixel"]]
        return [f"{row['input']}, {row['output'] or 'decoded'}: more than the estimate" for row in low]

    def readme_table(self) -> Table:
        """Return the same table."""
        return Table(_HEADINGS, [_cells(row) for row in self.document["results"]])

    def draw(self, path: Path) -> Path:
        """Plot measured and estimated bytes per pixel of every case."""
        rows = self.document["results"]
        with pyplot() as plt:
            figure, axes = plt.subplots(figsize=(10, 0.3 * len(rows) + 1.5), layout="constrained", facecolor="white")
            for place, row in enumerate(rows):
                axes.barh(place, row["estimated_bytes_per_pixel"], height=0.7, color=PALE)
                axes.barh(place, row["bytes_per_pixel"], height=0.4, color=ACCENT)
            axes.set_yticks(range(len(rows)), [f"{row['input']}: {row['output'] or 'decoded'}" for row in rows])
            axes.invert_yaxis()
            axes.set_xlabel("bytes per pixel: measured (dark), estimated (pale)")
            axes.set_title(self._title(), loc="left", fontsize=9)
            return save(plt, figure, path)

    def _title(self) -> str:
        return (
            f"peak memory of one picture of {self.document['megapixels']:g} megapixels in bytes per pixel, Pillow "
            f"{self.document['pillow']}"
        )


def _cells(row: MemoryRow) -> Row:
    return (
        row["input"],
        row["output"] or "decoded",
        f"{row['file_bytes_per_pixel']:.1f}",
        f"{row['bytes_per_pixel']:.1f}",
        f"{row['estimated_bytes_per_pixel']:.1f}",
    )
