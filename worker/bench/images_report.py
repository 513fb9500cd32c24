"""The report of `worker bench images`: tables and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, PALE, WARM, pyplot, save
from worker.bench.report import Document, LoadAverages, Row, Table

SCHEMA_VERSION = 1

REFERENCE_MASK = "reference: mask"
REFERENCE_CUTOUT = "reference: cutout"

STAGES = ("decode", "resize", "finish")
"""Bytes to pixels; pixels to the input of the network; its output to the bytes of all outputs."""

_HEADINGS = ("output", *(f"{stage} ms" for stage in STAGES), "CPU ms", "ms/MP", "x reference", "kB")
_README_HEADINGS = ("CPU", "JPEG", "network input", "reference", "mask", "cut-out", "refined cut-out")

_COLOURS = {"decode": ACCENT, "resize": PALE, "finish": WARM}


class CaseRow(TypedDict):
    """One case: CPU milliseconds per image, medians over the rounds."""

    label: str
    options: dict[str, Any] | None
    """`OutputOptions` other than the defaults; None for the reference."""
    decode_ms: float
    resize_ms: float
    finish_ms: float
    total_ms: float
    ms_per_megapixel: float
    over_reference: float
    """Total over that of the reference of the same kind."""
    bytes_written: int
    samples_ms: list[list[float]]
    """Of every round, one figure per stage."""


class PictureResult(LoadAverages):
    """All cases with one size of picture."""

    megapixels: float
    width: int
    height: int
    jpeg_bytes: int
    cases: list[CaseRow]


class ImagesDocument(Document):
    """The JSON document."""

    pillow: str | None
    picture: str
    size: int | str
    """Side of the network input."""
    rounds: int
    results: list[PictureResult]


@dataclass(frozen=True)
class ImagesReport:
    """See `report.BenchmarkReport`."""

    document: ImagesDocument
    name: ClassVar[str] = "images"

    def tables(self) -> list[Table]:
        """Return one table per size of picture."""
        return [
            Table(_HEADINGS, [_cells(case) for case in one["cases"]], self._title(one))
            for one in self.document["results"]
        ]

    def remarks(self) -> list[str]:
        """Return no remarks: titles and headings describe everything."""
        return []

    def readme_table(self) -> Table:
        """Return the CPU time of the common outputs and that of the reference."""
        rows = []
        for one in self.document["results"]:
            times = {case["label"]: case["total_ms"] for case in one["cases"]}
            shown = (times[label] for label in (REFERENCE_MASK, "mask", "cutout", "cutout refine"))
            rows.append(
                (
                    self.document["machine"]["cpu"],
                    f"{one['megapixels']:.1f} MP",
                    str(self.document["size"]),
                    *(f"{milliseconds:.0f} ms" for milliseconds in shown),
                )
            )
        return Table(_README_HEADINGS, rows)

    def draw(self, path: Path) -> Path:
        """Plot the stages of every case as one bar, one panel per size of picture."""
        results = self.document["results"]
        height = sum(0.36 * len(one["cases"]) + 1.1 for one in results) + 0.9
        with pyplot() as plt:
            figure, panels = plt.subplots(
                len(results), 1, figsize=(10, height), squeeze=False, layout="constrained", facecolor="white"
            )
            for axes, one in zip(panels[:, 0], results, strict=True):
                _panel(axes, one, self._title(one))
            cpu = self.document["machine"]["cpu"]
            figure.suptitle(f"Decode, resize and encode on {cpu}", x=0.01, ha="left", weight="bold")
            handles = [plt.Rectangle((0, 0), 1, 1, color=colour, label=stage) for stage, colour in _COLOURS.items()]
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
            return save(plt, figure, path)

    def _title(self, one: PictureResult) -> str:
        return (
            f"{one['width']} x {one['height']} JPEG of {one['jpeg_bytes'] // 1000} kB ({self.document['picture']}), "
            f"network input {self.document['size']}, one core, {self.document['rounds']} rounds in turn, load average "
            f"{one['load_average_before']} to {one['load_average_after']}"
        )


def _stages(case: CaseRow) -> tuple[float, float, float]:
    """Return milliseconds in the order of `STAGES`."""
    return case["decode_ms"], case["resize_ms"], case["finish_ms"]


def _cells(case: CaseRow) -> Row:
    return (
        case["label"],
        *(f"{milliseconds:.1f}" for milliseconds in _stages(case)),
        f"{case['total_ms']:.1f}",
        f"{case['ms_per_megapixel']:.1f}",
        f"{case['over_reference']:.2f}",
        f"{case['bytes_written'] / 1000:.0f}",
    )


def _panel(axes: Any, one: PictureResult, title: str) -> None:
    cases = one["cases"]
    widest = max(case["total_ms"] for case in cases)
    for place, case in enumerate(cases):
        left = 0.0
        for stage, milliseconds in zip(STAGES, _stages(case), strict=True):
            axes.barh(place, milliseconds, left=left, height=0.66, color=_COLOURS[stage], zorder=2)
            left += milliseconds
        text = f"{case['total_ms']:.0f} ms   {case['over_reference']:.2f}x"
        axes.text(left + 0.01 * widest, place, text, va="center", fontsize=9)
    axes.set_yticks(range(len(cases)), [case["label"] for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.set_xlabel("CPU milliseconds per image (text: total, and relative to the reference of the same kind)")
    axes.set_title(title, loc="left", fontsize=9)
    axes.grid(axis="x", color="#dfe3e8", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
