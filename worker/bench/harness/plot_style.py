"""What plots of benchmarks share: colours, plain axes, a file written or a clear error."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.contract.errors import SetupError

INK, GREY, ACCENT, PALE, WARM = "#1b1f24", "#8a8f98", "#0b6e99", "#9cc5d6", "#c98a3b"
DOTS_PER_INCH = 130


@contextlib.contextmanager
def pyplot() -> Iterator[Any]:
    """Matplotlib's, without a display, in our ink; imported where something is drawn, since it is an extra."""
    importlib.import_module("matplotlib").use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    with plt.rc_context({"font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        yield plt


def tidy(axes: Any, grid: str) -> None:
    """A grid along one axis, no frame."""
    axes.grid(axis=grid, color="#dfe3e8", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def save(plt: Any, figure: Any, path: Path) -> Path:
    """Write the PNG and forget the figure.

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
