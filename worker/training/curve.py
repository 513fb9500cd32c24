"""Plot the loss curve of a training run."""

from __future__ import annotations

import csv
from pathlib import Path

from worker.bench.harness.plot_style import ACCENT, WARM, pyplot, save, tidy


def draw(rows: Path, path: Path) -> Path:
    """Plot loss and soft IoU against the number of composites seen.

    Args:
        rows: CSV file written by `train`.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        SetupError: the PNG cannot be written.
    """
    with rows.open(encoding="utf-8", newline="") as file:
        table = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    images = [row["images"] for row in table]
    with pyplot() as plt:
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", facecolor="white")
        for axes, name, colour in ((left, "loss", WARM), (right, "iou", ACCENT)):
            axes.plot(images, [row[name] for row in table], color=colour, linewidth=1)
            axes.set_xlabel("composites")
            tidy(axes, "y")
        left.set_title("loss", loc="left")
        right.set_title("soft IoU on training composites", loc="left")
        return save(plt, figure, path)
