"""The style shared by all plots: colours, plain axes, saving to a file.

matplotlib belongs to the extra `[bench]`; without it a benchmark still writes its JSON and shows its tables.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.bench.harness import machine
from worker.contract.errors import SetupError

INK, GREY, ACCENT, PALE, WARM = "#1b1f24", "#8a8f98", "#0b6e99", "#9cc5d6", "#c98a3b"
DOTS_PER_INCH = 130


def why_no_plot() -> str:
    """Return why no plot can be drawn; empty if one can."""
    if machine.missing("matplotlib"):
        return "matplotlib is not installed: pip install 'maskmill[bench]'"
    return ""


@contextlib.contextmanager
def pyplot() -> Iterator[Any]:
    """Yield `matplotlib.pyplot` without a display and in this style.

    Imported here and not at the top, because matplotlib is an optional dependency.
    """
    importlib.import_module("matplotlib").use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    with plt.rc_context({"font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        yield plt


def tidy(axes: Any, grid: str) -> None:
    """Draw a grid along one axis (`x`, `y` or `both`) and no frame."""
    axes.grid(axis=grid, color="#dfe3e8", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def save(plt: Any, figure: Any, path: Path) -> Path:
    """Write a figure as PNG and close it; return the path.

    Raises:
        SetupError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    finally:
        plt.close(figure)
    return path
