"""The report of `worker bench scale` in words: rows of a table, a line for a README, a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.harness.plot_style import ACCENT, GREY, pyplot, save, tidy

SCALE_JSON = "scale.json"
SCALE_PNG = "scale.png"

HEADINGS = ("core sets", "cores", "bare images/s", "efficiency", "S3 to S3 images/s", "efficiency")
README_HEADINGS = "| CPU | network | core sets | bare limit, efficiency | S3 to S3, efficiency |\n|---|---|---|---|---|"


def title(report: dict[str, Any]) -> str:
    """What the table is about."""
    network = report["network"]
    return (
        f"{network['name']} {network['size']} {network['precision']} ({report['arithmetic']}) on core sets of "
        f"{report['cores_per_set']} cores, load average {report['load_average_before']} to "
        f"{report['load_average_after']}"
    )


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`."""
    return [
        (
            str(point["core_sets"]),
            str(point["cores"]),
            f"{point['bare_images_per_second']:.2f}",
            f"{point['bare_efficiency']:.2f}",
            f"{point['s3_images_per_second']:.2f}",
            f"{point['s3_efficiency']:.2f}",
        )
        for point in report["points"]
    ]


def readme_line(report: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`."""
    network, last = report["network"], report["points"][-1]
    cells = (
        report["machine"]["cpu"],
        f"{network['name']} {network['size']} {network['precision']}",
        f"{last['core_sets']} x {report['cores_per_set']} cores",
        f"{last['bare_images_per_second']:.2f} images/s, {last['bare_efficiency']:.2f}",
        f"{last['s3_images_per_second']:.2f} images/s, {last['s3_efficiency']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Write the plot as PNG: rates over core sets, with the straight line of perfect scaling.

    Raises:
        SetupError: the file cannot be written.
    """
    points = report["points"]
    sets = [point["core_sets"] for point in points]
    with pyplot() as plt:
        figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained", facecolor="white")
        for kind, label, colour in (("bare", "bare limit", GREY), ("s3", "S3 to S3", ACCENT)):
            rates = [point[f"{kind}_images_per_second"] for point in points]
            axes.plot(sets, rates, "o-", color=colour, label=label)
            axes.plot([1, sets[-1]], [rates[0], rates[0] * sets[-1]], ":", color=colour, lw=1)
            axes.text(sets[-1], rates[-1], f" {points[-1][f'{kind}_efficiency']:.2f}", va="center", fontsize=9)
        axes.set(
            xlabel="core sets at work (dotted: as many times the first)", ylabel="images per second", ylim=(0, None)
        )
        axes.set_xticks(sets)
        axes.legend(frameon=False, loc="upper left")
        axes.set_title(title(report), loc="left", fontsize=9)
        tidy(axes, "y")
        return save(plt, figure, path)
