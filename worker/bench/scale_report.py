"""The report of `worker bench scale`: a table and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, pyplot, save, tidy
from worker.bench.report import Document, JpegFacts, LoadAverages, Network, Table, counted

SCHEMA_VERSION = 1

_HEADINGS = ("core sets", "cores", "ceiling, images/s", "efficiency", "S3 to S3, images/s", "efficiency")
_README_HEADINGS = ("CPU", "network", "core sets", "inference ceiling, efficiency", "S3 to S3, efficiency")


class Point(TypedDict):
    """Rates on a number of core sets; efficiency is the rate over that of one core set times their number."""

    core_sets: int
    cores: int
    bare_images_per_second: float
    """Of the network alone: the inference ceiling."""
    s3_images_per_second: float
    bare_efficiency: float
    s3_efficiency: float


class ScaleDocument(Document, LoadAverages):
    """The JSON document."""

    network: Network
    arithmetic: str
    cores_per_set: int
    picture: JpegFacts
    points: list[Point]


@dataclass(frozen=True)
class ScaleReport:
    """See `report.BenchmarkReport`."""

    document: ScaleDocument
    name: ClassVar[str] = "scale"

    def tables(self) -> list[Table]:
        """Return one row per number of core sets."""
        rows = [
            (
                str(point["core_sets"]),
                str(point["cores"]),
                f"{point['bare_images_per_second']:.2f}",
                f"{point['bare_efficiency']:.2f}",
                f"{point['s3_images_per_second']:.2f}",
                f"{point['s3_efficiency']:.2f}",
            )
            for point in self.document["points"]
        ]
        return [Table(_HEADINGS, rows, self._title())]

    def remarks(self) -> list[str]:
        """Return no remarks: title and headings describe everything."""
        return []

    def readme_table(self) -> Table:
        """Return the rates on all core sets."""
        network, last = self.document["network"], self.document["points"][-1]
        row = (
            self.document["machine"]["cpu"],
            f"{network['name']} {network['size']} {network['precision']}",
            f"{last['core_sets']} x {counted(self.document['cores_per_set'], 'core')}",
            f"{last['bare_images_per_second']:.2f} images/s, {last['bare_efficiency']:.2f}",
            f"{last['s3_images_per_second']:.2f} images/s, {last['s3_efficiency']:.2f}",
        )
        return Table(_README_HEADINGS, [row])

    def draw(self, path: Path) -> Path:
        """Plot rates over core sets, with a dotted line for perfect scaling."""
        points = self.document["points"]
        sets = [point["core_sets"] for point in points]
        bare, s3 = ([p["bare_images_per_second"] for p in points], [p["s3_images_per_second"] for p in points])
        series = (
            ("inference ceiling", GREY, bare, points[-1]["bare_efficiency"]),
            ("S3 to S3", ACCENT, s3, points[-1]["s3_efficiency"]),
        )
        with pyplot() as plt:
            figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained", facecolor="white")
            for label, colour, rates, efficiency in series:
                axes.plot(sets, rates, "o-", color=colour, label=label)
                axes.plot([1, sets[-1]], [rates[0], rates[0] * sets[-1]], ":", color=colour, lw=1)
                axes.text(sets[-1], rates[-1], f" {efficiency:.2f}", va="center", fontsize=9)
            axes.set(xlabel="core sets in use (dotted: perfect scaling)", ylabel="images per second", ylim=(0, None))
            axes.set_xticks(sets)
            axes.legend(frameon=False, loc="upper left")
            axes.set_title(self._title(), loc="left", fontsize=9)
            tidy(axes, "y")
            return save(plt, figure, path)

    def _title(self) -> str:
        network = self.document["network"]
        return (
            f"{network['name']} {network['size']} {network['precision']} ({self.document['arithmetic']}) on core sets "
            f"of {counted(self.document['cores_per_set'], 'core')}, load average "
            f"{self.document['load_average_before']} to {self.document['load_average_after']}"
        )
