"""The report of `worker bench peers`: a table, sentences and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, pyplot, save, tidy
from worker.bench.report import Document, JpegFacts, LoadAverages, Network, Row, Table, counted

SCHEMA_VERSION = 1

_HEADINGS = ("program", "images/s", "core-s per image", "peak MiB", "maskmill is faster by", "IoU with maskmill", "MAE")


class PeerRow(TypedDict):
    """One program."""

    name: str
    version: str
    images_per_second: float
    """Median of the turns."""
    cpu_seconds: float
    """Per image; median of the turns."""
    peak_mib: int
    """Peak memory of its process; for maskmill the sum of its model processes."""
    ours_is_faster: float
    """Median over the rounds of its time per image over maskmill's in the same round."""
    turns: list[float]
    """Seconds per image."""


class AgreementRow(TypedDict):
    """Alpha channels of a program's cut-outs compared with maskmill's."""

    peer: str
    iou: float
    """At half opacity; mean over the pictures."""
    worst_iou: float
    mae: float
    """0 to 1."""


class PeersDocument(Document, LoadAverages):
    """The JSON document."""

    network: Network
    arithmetic: str
    cores: int
    images: int
    rounds: int
    picture: JpegFacts
    peers: list[PeerRow]
    agreement: list[AgreementRow]


@dataclass(frozen=True)
class PeersReport:
    """See `report.BenchmarkReport`."""

    document: PeersDocument
    name: ClassVar[str] = "peers"

    def tables(self) -> list[Table]:
        """Return one row per program."""
        return [Table(_HEADINGS, self._rows(), self._title())]

    def remarks(self) -> list[str]:
        """Return what was measured, and the versions."""
        versions = ", ".join(f"{row['name']}: {row['version']}" for row in self.document["peers"])
        worst = min(self.document["agreement"], key=lambda row: row["worst_iou"])
        return [
            "maskmill runs from S3 to S3 with Redis and the S3 server on the same cores, and their core time counts; "
            "the others run from folder to folder. Start-up and the loading of the network are taken off for all",
            f"lowest IoU of a picture: {worst['worst_iou']:.3f} ({worst['peer']})",
            versions,
        ]

    def readme_table(self) -> Table:
        """Return the same rows."""
        return Table(_HEADINGS, self._rows())

    def draw(self, path: Path) -> Path:
        """Plot images per second of every program."""
        with pyplot() as plt:
            figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained", facecolor="white")
            rows = self.document["peers"]
            for place, row in enumerate(rows):
                axes.barh(place, row["images_per_second"], color=GREY if place else ACCENT, zorder=2)
                axes.text(row["images_per_second"], place, f" {row['images_per_second']:.2f}", va="center", fontsize=9)
            axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
            axes.invert_yaxis()
            axes.set_xlabel("images per second")
            axes.set_title(self._title(), loc="left", fontsize=9)
            tidy(axes, "x")
            return save(plt, figure, path)

    def _rows(self) -> list[Row]:
        agreement = {row["peer"]: row for row in self.document["agreement"]}
        rows: list[Row] = []
        for row in self.document["peers"]:
            agreed = agreement.get(row["name"])
            rows.append(
                (
                    row["name"],
                    f"{row['images_per_second']:.2f}",
                    f"{row['cpu_seconds']:.3f}",
                    str(row["peak_mib"]),
                    f"{row['ours_is_faster']:.2f} x" if agreed else "-",
                    f"{agreed['iou']:.3f}" if agreed else "-",
                    f"{agreed['mae']:.4f}" if agreed else "-",
                )
            )
        return rows

    def _title(self) -> str:
        found, network, picture = self.document, self.document["network"], self.document["picture"]
        return (
            f"{network['name']} {network['size']} {network['precision']} ({found['arithmetic']}) on "
            f"{counted(found['cores'], 'core')}, cut-outs of {found['images']} photographs of {picture['width']} x "
            f"{picture['height']}, {counted(found['rounds'], 'round')}, load average {found['load_average_before']} to "
            f"{found['load_average_after']}"
        )
