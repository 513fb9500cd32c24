"""The report of `worker bench pipeline` in words: rows of a table, a line for a README, a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.harness.plot_style import ACCENT, GREY, PALE, WARM, pyplot, save, tidy

PIPELINE_JSON = "pipeline.json"
PIPELINE_PNG = "pipeline.png"

HEADINGS = ("stage", "wall ms", "CPU ms")
README_HEADINGS = (
    "| CPU | network | cores | S3 to S3, images/s | bare limit | ratio | ratio, Redis and S3 apart | cores busy | "
    "CPU ms beside inference: pixels + elsewhere |\n|---|---|---|---|---|---|---|---|---|"
)

_ORDER = ("check", "fetch", "decode", "prepare", "infer", "render", "hold", "store", "record")


def title(report: dict[str, Any]) -> str:
    """What the table is about."""
    network, picture = report["network"], report["picture"]
    return (
        f"{network['name']} {network['size']} {network['precision']} ({report['arithmetic']}), {report['processes']} "
        f"processes, {report['streams']} streams on {report['cores']} cores, {picture['width']} x {picture['height']} "
        f"JPEG to PNG mask, load average {report['load_average_before']} to {report['load_average_after']}"
    )


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`, in the order in which an image goes through."""
    stages = report["stages"]
    return [
        (name, f"{stages[name]['wall_ms']:.1f}", f"{stages[name]['cpu_ms']:.1f}") for name in _ORDER if name in stages
    ]


def remarks(report: dict[str, Any]) -> list[str]:
    """What the numbers say."""
    cpu, start = report["cpu"], report["start_up"]
    busy = "" if report["busy"] is None else f"; cores busy {report['busy']:.2f} while chunks waited"
    lines = [
        f"S3 to S3 {report['images_per_second']:.2f} images/s, bare limit {report['bare_images_per_second']:.2f}: "
        f"{report['ratio']:.3f} of it ({report['ratio_services_apart']:.3f} with the core time of Redis and S3 taken "
        f"off){busy}",
        f"CPU per image: inference {cpu['inference_ms']:.0f} ms (bare {cpu['bare_ms']:.0f}), decode + resize + render "
        f"{cpu['pixels_ms']:.1f} ms, elsewhere {cpu['elsewhere_ms']:.1f} ms; Redis and S3 servers "
        f"{cpu['services_ms']:.1f} ms",
        f"peak memory of a process: {max(report['peak_memory_mib'], default=0)} MiB",
    ]
    if start:
        lines.append(
            f"from `worker start` to the first image: {start['cold_seconds']:.1f} s without a cache, "
            f"{start['cached_seconds']:.1f} s with"
        )
    return lines


def readme_line(report: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`."""
    network, cpu = report["network"], report["cpu"]
    cells = (
        report["machine"]["cpu"],
        f"{network['name']} {network['size']} {network['precision']}",
        str(report["cores"]),
        f"{report['images_per_second']:.2f}",
        f"{report['bare_images_per_second']:.2f}",
        f"{report['ratio']:.3f}",
        f"{report['ratio_services_apart']:.3f}",
        "-" if report["busy"] is None else f"{report['busy']:.2f}",
        f"{cpu['pixels_ms']:.0f} + {cpu['elsewhere_ms']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Write the plot as PNG: every round against its bare turns, and where the CPU time of an image goes.

    Raises:
        SetupError: the file cannot be written.
    """
    with pyplot() as plt:
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", facecolor="white")
        for number, one in enumerate(report["rounds"]):
            bare = one["bare_images_per_second"]
            left.bar(number - 0.2, sum(bare) / len(bare), 0.36, color=GREY, zorder=2)
            left.bar(number + 0.2, one["images_per_second"], 0.36, color=ACCENT, zorder=2)
            left.text(number + 0.2, one["images_per_second"], f"{one['ratio']:.3f}", ha="center", va="bottom")
        left.set_xticks(range(len(report["rounds"])), [f"round {n + 1}" for n in range(len(report["rounds"]))])
        left.set_ylabel("images per second")
        left.set_title("bare limit before and after (grey), S3 to S3 (blue)", loc="left", fontsize=10)
        tidy(left, "y")
        _cpu(right, report)
        figure.suptitle(title(report), x=0.01, ha="left", fontsize=9)
        return save(plt, figure, path)


def _cpu(axes: Any, report: dict[str, Any]) -> None:
    """One bar of parts, inference left out: it would dwarf the rest."""
    stages, cpu = report["stages"], report["cpu"]
    parts = [(name, stages[name]["cpu_ms"], WARM) for name in ("decode", "prepare", "render") if name in stages]
    around = [(name, stages[name]["cpu_ms"], PALE) for name in ("fetch", "store", "record") if name in stages]
    rest = cpu["elsewhere_ms"] - sum(ms for _, ms, _ in around)
    parts += [*around, ("rest", max(0.0, rest), GREY), ("Redis, S3", cpu["services_ms"], "#dfe3e8")]
    for place, (_, milliseconds, colour) in enumerate(parts):
        axes.barh(place, milliseconds, color=colour, zorder=2)
        axes.text(milliseconds, place, f" {milliseconds:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(parts)), [name for name, _, _ in parts])
    axes.invert_yaxis()
    axes.set_xlabel(f"CPU milliseconds per image beside inference ({cpu['inference_ms']:.0f} ms)")
    tidy(axes, "x")
