"""Rows, README line and plot of `worker bench submit`.

    {"schema_version", "benchmark": "submit", "machine", "results": [
        {"keys", "submit": {"listing", "whole", "idle_mib", "peak_mib", "curve", "published", ...}, "redis", "status",
         "recover", "cancel", "end", "retry"}],
     "plain_celery": {"messages", "wall_seconds", "cpu_seconds", "redis_bytes", "redis_bytes_per_image"}}

Submitting is counted beside the listing: the time of both less that of the made-up listing alone, on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.harness.plot_style import ACCENT, WARM, pyplot, save

SUBMIT_JSON = "submit.json"
SUBMIT_PNG = "submit.png"

HEADINGS = (
    "keys",
    "submit s",
    "CPU s",
    "keys/s",
    "producer MiB",
    "Redis kB",
    "when done MB",
    "messages",
    "status p50/p99 ms",
    "cancel",
    "recover s (CPU)",
    "end s",
    "retry s",
)
"""Of `rows`."""

README_HEADINGS = (
    "| CPU | keys | submit, beside listing (CPU) | producer memory | Redis memory | status | cancel | recover (CPU) "
    "| plain Celery: submit (CPU) | plain Celery: Redis |"
)

_MB, _KB = 1e6, 1e3
_OURS, _OTHER = ACCENT, WARM
_TEN = 10
_SIZE_INCHES = (11.0, 4.6)


def beside(result: dict[str, Any], clock: str = "wall_seconds") -> float:
    """Seconds of submitting, without those of the listing."""
    submit = result["submit"]
    return max(1e-9, float(submit["whole"][clock]) - float(submit["listing"][clock]))


def plain(report: dict[str, Any], keys: int) -> tuple[float, float]:
    """Seconds and bytes of Redis that plain Celery would take for so many images, from those that were sent."""
    found = report["plain_celery"]
    scale = keys / max(1, found["messages"])
    return found["wall_seconds"] * scale, found["redis_bytes"] * scale


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table as text under `HEADINGS`: ours, then plain Celery for as many images."""
    found = [_row(result) for result in report["results"]]
    for result in report["results"]:
        seconds, size = plain(report, result["keys"])
        dashes = ("-",) * (len(HEADINGS) - 8)
        sent = (f"{result['keys']:,} plain Celery", f"{seconds:.1f}", "-", f"{result['keys'] / seconds:,.0f}", "-")
        found.append((*sent, f"{size / _KB:,.0f}", "-", f"{result['keys']:,}", *dashes))
    return found


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    redis, status, cancel = result["redis"], result["status"], result["cancel"]
    return (
        f"{result['keys']:,}",
        f"{beside(result):.1f}",
        f"{beside(result, 'cpu_seconds'):.1f}",
        f"{result['keys'] / beside(result):,.0f}",
        f"{result['submit']['peak_mib']:.0f}",
        f"{redis['submitted_bytes'] / _KB:,.0f}",
        f"{redis['done_bytes'] / _MB:.2f}",
        str(redis["messages"]),
        f"{status['p50_ms']:.2f}/{status['p99_ms']:.2f}",
        f"{cancel['ms']:.1f} ms, {cancel['commands']} commands",
        f"{result['recover']['wall_seconds']:.1f} ({result['recover']['cpu_seconds']:.1f})",
        f"{result['end']['wall_seconds']:.1f}",
        f"{result['retry']['wall_seconds']:.1f}",
    )


def remarks(report: dict[str, Any]) -> list[str]:
    """What must be read together with the table."""
    found = report["plain_celery"]
    lines = [
        f"{report['machine']['cpu']}, load average {report['load_average_before']} to {report['load_average_after']}; "
        "one core for each producer; the listing is made up, Redis and S3 are real",
        f"plain Celery is extrapolated from {found['messages']:,} messages of one image each: "
        f"{found['redis_bytes_per_image']:.0f} bytes and {found['wall_seconds'] / found['messages'] * 1e6:.0f} us each",
    ]
    for result in report["results"]:
        submit, recover, end = result["submit"], result["recover"], result["end"]
        lines.append(
            f"{result['keys']:,} keys: producer {submit['idle_mib']:.0f} MiB idle, recover {recover['peak_mib']:.0f} "
            f"MiB, steward at the end {end['steward_peak_mib']:.0f} MiB; recovered with {result['keys'] // 2:,} "
            f"outcomes, {result['redis']['recovered_bytes'] / _MB:.2f} MB in Redis"
        )
    return lines


def readme_line(report: dict[str, Any], result: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`."""
    seconds, size = plain(report, result["keys"])
    cpu = report["plain_celery"]["cpu_seconds"] * result["keys"] / report["plain_celery"]["messages"]
    cancel = result["cancel"]
    cells = (
        report["machine"]["cpu"],
        f"{result['keys']:,}",
        f"{beside(result):.1f} s ({beside(result, 'cpu_seconds'):.1f} s)",
        f"{result['submit']['peak_mib']:.0f} MiB",
        f"{result['redis']['done_bytes'] / _MB:.1f} MB",
        f"{result['status']['p50_ms']:.2f} ms",
        f"{cancel['ms']:.0f} ms, {cancel['commands']} commands",
        f"{result['recover']['wall_seconds']:.1f} s ({result['recover']['cpu_seconds']:.1f} s)",
        f"{seconds:,.0f} s ({cpu:,.0f} s)",
        f"{size / _MB:,.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Memory of the producer while it submits, and memory in Redis beside plain Celery's, as PNG.

    Raises:
        SetupError: the file cannot be written.
    """
    with pyplot() as plt:
        figure, (left, right) = plt.subplots(1, 2, figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
        _memory(left, report)
        _redis(right, report)
        for axes in (left, right):
            axes.grid(axis="y", color="#dfe3e8", zorder=0)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        figure.suptitle(f"Submitting on {report['machine']['cpu']}", x=0.01, ha="left", weight="bold")
        return save(plt, figure, path)


def _memory(axes: Any, report: dict[str, Any]) -> None:
    for index, result in enumerate(report["results"]):
        curve = result["submit"]["curve"]
        whole = max(curve[-1][0], 1e-9)
        style = {"color": _OURS, "alpha": 1 - 0.5 * index / max(1, len(report["results"])), "zorder": 2}
        label = f"{result['keys']:,} keys ({whole:.0f} s with the listing)"
        axes.plot([at / whole * 100 for at, _ in curve], [mib for _, mib in curve], label=label, **style)
    axes.axhline(200, color="#8a8f98", linestyle="--", linewidth=1)
    axes.text(100, 203, "target", ha="right", fontsize=9, color="#8a8f98")
    axes.set_ylim(0, 225)
    axes.set_xlabel("part of the submission done, %")
    axes.set_ylabel("MiB")
    axes.set_title("resident memory of the producer", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _redis(axes: Any, report: dict[str, Any]) -> None:
    names = [f"{result['keys']:,}" for result in report["results"]]
    series = (
        ("maskmill, submitted", [r["redis"]["submitted_bytes"] / _MB for r in report["results"]], "#9cc5d6"),
        ("maskmill, every image done", [r["redis"]["done_bytes"] / _MB for r in report["results"]], _OURS),
        ("plain Celery, a message per image", [plain(report, r["keys"])[1] / _MB for r in report["results"]], _OTHER),
    )
    width = 0.8 / len(series)
    for place, (label, values, colour) in enumerate(series):
        at = [index + (place - 1) * width for index in range(len(names))]
        axes.bar(at, values, width * 0.94, color=colour, label=label, zorder=2)
        for x, value in zip(at, values, strict=True):
            axes.text(x, value * 1.08, f"{value:.2g}" if value < _TEN else f"{value:,.0f}", ha="center", fontsize=9)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [f"{name} keys" for name in names])
    axes.set_ylabel("MB (logarithmic)")
    axes.set_ylim(top=axes.get_ylim()[1] * 50)  # room for the legend
    axes.set_title("memory in Redis for the job", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
