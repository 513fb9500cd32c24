"""The report of `worker bench neighbour`: a table and a plot."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, pyplot, save, tidy
from worker.bench.report import Document, LoadAverages, Row, Table

SCHEMA_VERSION = 1
LIMIT = 1.2
"""Times its fair time that a job may take beside a neighbour."""

_HEADINGS = (
    *("neighbour", "alone, s", "beside, s", "fair share, s", "times its fair time"),
    *("images of the neighbour meanwhile", "Redis, MiB", "steward, peak MiB"),
)


class Beside(TypedDict):
    """The job alone, and beside one neighbour."""

    neighbour: str
    fair: float
    """Times its time alone that the job takes with its fair share: 2 beside a job that runs, 1 beside a paused one."""
    alone_seconds: float
    beside_seconds: float
    neighbour_images: int
    """Images of the neighbour that got an outcome meanwhile."""
    redis_mib: float
    steward_peak_mib: float


class NeighbourDocument(Document, LoadAverages):
    """The JSON document."""

    images: int
    rows: list[Beside]


@dataclass(frozen=True)
class NeighbourReport:
    """See `report.BenchmarkReport`."""

    document: NeighbourDocument
    name: ClassVar[str] = "neighbour"

    def tables(self) -> list[Table]:
        """Return one row per neighbour: medians over the rounds, and the largest memory."""
        return [Table(_HEADINGS, self._rows(), f"a job of {self.document['images']} images of another tenant")]

    def remarks(self) -> list[str]:
        """Return what the figures mean."""
        return [
            "a job that shares the workers with one tenant should take twice its time alone; at most "
            f"{LIMIT:g} times that is the aim",
            f"load average {self.document['load_average_before']} to {self.document['load_average_after']}",
        ]

    def readme_table(self) -> Table:
        """Return the same table."""
        return Table(_HEADINGS, self._rows())

    def draw(self, path: Path) -> Path:
        """Plot how many times its fair time the job took beside each neighbour."""
        names = self._names()
        ratios = [self._ratio(name) for name in names]
        with pyplot() as plt:
            figure, axes = plt.subplots(figsize=(8, 3), layout="constrained", facecolor="white")
            axes.barh(names, ratios, color=ACCENT, zorder=2)
            axes.axvline(LIMIT, color=GREY, linestyle="--", linewidth=1)
            axes.set_xlabel("times the time of its fair share (dashed: the aim)")
            tidy(axes, "x")
            return save(plt, figure, path)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(row["neighbour"] for row in self.document["rows"]))

    def _of(self, name: str) -> list[Beside]:
        return [row for row in self.document["rows"] if row["neighbour"] == name]

    def _ratio(self, name: str) -> float:
        return statistics.median(row["beside_seconds"] / row["alone_seconds"] / row["fair"] for row in self._of(name))

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for name in self._names():
            found = self._of(name)
            alone, beside = (
                statistics.median(times)
                for times in zip(*((row["alone_seconds"], row["beside_seconds"]) for row in found), strict=True)
            )
            rows.append(
                (
                    name,
                    f"{alone:.1f}",
                    f"{beside:.1f}",
                    f"{alone * found[0]['fair']:.1f}",
                    f"{self._ratio(name):.2f}",
                    f"{statistics.median(row['neighbour_images'] for row in found):,.0f}",
                    f"{max(row['redis_mib'] for row in found):.1f}",
                    f"{max(row['steward_peak_mib'] for row in found):.0f}",
                )
            )
        return rows
