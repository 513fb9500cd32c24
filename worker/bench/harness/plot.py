"""The plot of a comparison: time per image of every contender, one panel for each size and layout.

matplotlib belongs to the extra `[bench]`; without it a measurement still gives its JSON and its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.harness import machine
from worker.bench.harness.plot_style import INK, pyplot, save
from worker.bench.report import counted, sides

_COLOURS = {"plain": "#8a8f98", "ours": "#0b6e99", "check": "#9cc5d6", "other": "#c98a3b"}
_LEGEND = {
    "plain": "network without rewrites, our engine",
    "ours": "maskmill, our engine",
    "check": "benchmark_app, same file and settings",
    "other": "other runtimes",
}
_ROW_INCHES = 0.42
_WIDTH_INCHES = 10.0
_HEAD_INCHES = 1.25
_FOOT_INCHES = 1.0


def missing() -> str:
    """Why no plot can be drawn; empty if one can."""
    if machine.missing("matplotlib"):
        return "matplotlib is not installed; install maskmill[bench]"
    return ""


def draw(report: dict[str, Any], path: Path) -> Path:
    """Write the plot as PNG.

    Raises:
        SetupError: the file cannot be written.
    """
    results = report["results"]
    counts = [len(one["contenders"]) for one in results]
    height = _ROW_INCHES * sum(counts) + _HEAD_INCHES * len(results) + _FOOT_INCHES
    with pyplot() as plt:
        figure, panels = plt.subplots(
            len(results),
            1,
            figsize=(_WIDTH_INCHES, height),
            squeeze=False,
            layout="constrained",
            gridspec_kw={"height_ratios": counts},
            facecolor="white",
        )
        for axes, one in zip(panels[:, 0], results, strict=True):
            _panel(axes, one)
        facts = report["machine"]
        figure.suptitle(f"BiRefNet-lite on {facts['cpu']} ({facts['isa_words']})", x=0.01, ha="left", weight="bold")
        _legend(figure, plt, results)
        return save(plt, figure, path)


def _panel(axes: Any, one: dict[str, Any]) -> None:
    """Bars of best times, the slower median and every sample as dots, ratios written behind."""
    rows = one["contenders"]
    widest = max(sample["wall_seconds"] / sample["images"] for row in rows for sample in row["samples"])
    for place, row in enumerate(rows):
        times = [sample["wall_seconds"] / sample["images"] for sample in row["samples"]]
        axes.barh(place, row["best_seconds"], height=0.62, color=_COLOURS[row["role"]], zorder=2)
        axes.plot(times, [place] * len(times), "o", ms=3.5, mfc="white", mec=INK, mew=0.7, zorder=3)
        text = f"{row['best_seconds']:.3f} s   {row['speedup']:.2f}x"
        axes.text(max(times) + 0.015 * widest, place, text, va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.set_xlabel("seconds per image (bar: best; dots: rounds; text: best, and speed against the plain conversion)")
    streams, threads = one["streams"], one["threads"]
    axes.set_title(
        f"{sides(one['size'])}, {counted(streams, 'stream')} x {counted(threads // streams, 'thread')}, "
        f"{one['rounds']} rounds in turn, load average {one['load_average_before']} to {one['load_average_after']}",
        loc="left",
        fontsize=10,
    )
    axes.grid(axis="x", color="#dfe3e8", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _legend(figure: Any, plt: Any, results: list[dict[str, Any]]) -> None:
    roles = {row["role"] for one in results for row in one["contenders"]}
    patches = [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=_LEGEND[role])
        for role, colour in _COLOURS.items()
        if role in roles
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
