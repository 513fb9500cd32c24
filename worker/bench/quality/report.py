"""The report of `worker bench quality`: tables, and the sheet in place of a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from worker.bench.harness.machine import MachineFacts
from worker.bench.report import Row, Table

SCHEMA_VERSION = 1


_HEADINGS = ("network", "S", "weighted F", "E", "MAE", "IoU", "worst", "boundary IoU", "s/picture", "MB", "peak MiB")
_README_HEADINGS = (
    "exam",
    "network",
    "S",
    "weighted F",
    "E",
    "MAE",
    "IoU",
    "boundary IoU",
    "s/picture",
    "MB",
    "licence",
)
_REMBG_HEADINGS = ("network", "compared with", "IoU", "worst", "MAE")
_WORST_SHOWN = 3


class Scores(TypedDict):
    """See `worker.convert.evaluate.scores.Quality`."""

    s_measure: float
    weighted_f: float
    e_measure: float
    mae: float
    iou: float
    boundary_iou: float


class PictureScores(Scores):
    """The scores of one picture."""

    picture: str
    """File name."""


class NetworkFacts(TypedDict):
    """What ran, and how."""

    source: str
    digest: str
    """Of the variant; of the weights, for rembg."""
    licence: str
    """As the bundle manifest states it."""
    arithmetic: str
    """Of the float part, as compiled."""
    file_bytes: int
    seconds: float
    """Median per picture on the CPUs of one core set: the network alone; for rembg with both resizes."""
    peak_mib: int
    """Peak memory of the process."""


class NetworkRow(NetworkFacts):
    """One network on the exam."""

    label: str
    scores: Scores
    """Means over the pictures."""
    pictures: list[PictureScores]


class RembgAgreement(TypedDict):
    """Masks of a bundle compared with those of rembg."""

    label: str
    rembg: str
    iou: float
    worst_iou: float
    mae: float


class ExamFacts(TypedDict):
    """The exam."""

    name: str
    pictures: int
    sha256: str
    description: str
    licence: str


class QualityDocument(TypedDict):
    """The JSON document."""

    schema_version: int
    benchmark: str
    machine: MachineFacts
    exam: ExamFacts
    networks: list[NetworkRow]
    against_rembg: list[RembgAgreement]
    notes: list[str]


@dataclass(frozen=True)
class QualityReport:
    """What was found. It has the members of every report of a benchmark."""

    document: QualityDocument
    sheet: Any
    """See `worker.bench.quality.sheet`."""
    name: ClassVar[str] = "quality"

    def tables(self) -> list[Table]:
        """Return the scores, and the agreement with rembg if it was measured."""
        exam = self.document["exam"]
        title = f"{exam['name']}: {exam['pictures']} pictures, exam {exam['sha256'][:12]}"
        found = [Table(_HEADINGS, [_cells(row) for row in self.document["networks"]], title)]
        if agreed := self.document["against_rembg"]:
            rows = [
                (a["label"], a["rembg"], f"{a['iou']:.4f}", f"{a['worst_iou']:.4f}", f"{a['mae']:.5f}") for a in agreed
            ]
            found.append(Table(_REMBG_HEADINGS, rows, "masks compared with rembg's, same pictures"))
        return found

    def remarks(self) -> list[str]:
        """Return how the exam was made, the worst pictures of each network, and notes."""
        exam = self.document["exam"]
        lines = [f"{exam['name']}: {exam['description']}"] if exam["description"] else []
        for row in self.document["networks"]:
            worst = sorted(row["pictures"], key=lambda one: one["iou"])[:_WORST_SHOWN]
            named = ", ".join(f"{one['picture']} {one['iou']:.2f}" for one in worst)
            lines.append(f"{row['label']} ({row['arithmetic']}): lowest IoU: {named}")
        machine = self.document["machine"]
        lines.append(f"{machine['cpu']} ({machine['isa_words']}); s/picture: the network alone, for rembg with resizes")
        return [*lines, *self.document["notes"]]

    def readme_table(self) -> Table:
        """Return the scores of all networks on this exam."""
        exam = self.document["exam"]["name"]
        return Table(
            _README_HEADINGS,
            [
                (exam, cells[0], *cells[1:6], *cells[7:10], row["licence"] or "-")
                for row, cells in ((row, _cells(row)) for row in self.document["networks"])
            ],
        )

    def draw(self, path: Path) -> Path:
        """Write the sheet as PNG; return the path.

        Raises:
            SetupError: the file cannot be written.
        """
        written: Path = self.sheet.write(path)
        return written


def _cells(row: NetworkRow) -> Row:
    means = row["scores"]
    return (
        row["label"],
        f"{means['s_measure']:.3f}",
        f"{means['weighted_f']:.3f}",
        f"{means['e_measure']:.3f}",
        f"{means['mae']:.4f}",
        f"{means['iou']:.3f}",
        f"{min(one['iou'] for one in row['pictures']):.3f}",
        f"{means['boundary_iou']:.3f}",
        f"{row['seconds']:.3f}",
        f"{row['file_bytes'] / 1e6:.1f}",
        str(row["peak_mib"]),
    )
