"""The report of `worker bench images` in words: rows of a table, a line for a README, a file, a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.harness.plot_style import pyplot, save
from worker.bench.images import REFERENCE_MASK, STAGES

IMAGES_JSON = "images.json"
IMAGES_PNG = "images.png"

HEADINGS = ("output", *(f"{stage} ms" for stage in STAGES), "CPU ms", "ms/MP", "x reference", "kB")
README_HEADINGS = "| CPU | JPEG | network input | reference | mask | cut-out | refined cut-out |"

_COLOURS = {"decode": "#0b6e99", "resize": "#9cc5d6", "finish": "#c98a3b"}


def title(report: dict[str, Any], result: dict[str, Any]) -> str:
    """What one table is about."""
    return (
        f"{result['width']} x {result['height']} JPEG of {result['jpeg_bytes'] // 1000} kB ({report['picture']}), "
        f"network input {report['size']}, one core, {report['rounds']} rounds in turn, load average "
        f"{result['load_average_before']} to {result['load_average_after']}"
    )


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`."""
    return [
        (
            case["label"],
            *(f"{case[f'{stage}_ms']:.1f}" for stage in STAGES),
            f"{case['total_ms']:.1f}",
            f"{case['ms_per_megapixel']:.1f}",
            f"{case['over_reference']:.2f}",
            f"{case['bytes_written'] / 1000:.0f}",
        )
        for case in result["cases"]
    ]


def readme_line(report: dict[str, Any], result: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`."""
    times = {case["label"]: case["total_ms"] for case in result["cases"]}
    cells = (
        report["machine"]["cpu"],
        f"{result['megapixels']:.1f} MP",
        str(report["size"]),
        *(f"{times[label]:.0f} ms" for label in (REFERENCE_MASK, "mask", "cutout", "cutout refine")),
    )
    return f"| {' | '.join(cells)} |"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Write the plot as PNG: stages of every case as one bar, a panel for each size of picture.

    Raises:
        SetupError: the file cannot be written.
    """
    results = report["results"]
    height = sum(0.36 * len(one["cases"]) + 1.1 for one in results) + 0.9
    with pyplot() as plt:
        figure, panels = plt.subplots(
            len(results), 1, figsize=(10, height), squeeze=False, layout="constrained", facecolor="white"
        )
        for axes, one in zip(panels[:, 0], results, strict=True):
            _panel(axes, report, one)
        figure.suptitle(f"Decode, resize and encode on {report['machine']['cpu']}", x=0.01, ha="left", weight="bold")
        handles = [plt.Rectangle((0, 0), 1, 1, color=colour, label=stage) for stage, colour in _COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        return save(plt, figure, path)


def _panel(axes: Any, report: dict[str, Any], one: dict[str, Any]) -> None:
    cases = one["cases"]
    widest = max(case["total_ms"] for case in cases)
    for place, case in enumerate(cases):
        left = 0.0
        for stage in STAGES:
            axes.barh(place, case[f"{stage}_ms"], left=left, height=0.66, color=_COLOURS[stage], zorder=2)
            left += case[f"{stage}_ms"]
        text = f"{case['total_ms']:.0f} ms   {case['over_reference']:.2f}x"
        axes.text(left + 0.01 * widest, place, text, va="center", fontsize=9)
    axes.set_yticks(range(len(cases)), [case["label"] for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.set_xlabel("CPU milliseconds per image (text: together, and against the reference of its kind)")
    axes.set_title(title(report, one), loc="left", fontsize=9)
    axes.grid(axis="x", color="#dfe3e8", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
