"""The report of `worker bench fleet` in words: rows of a table, a line for a README, a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.bench.fleet import SATURATED
from worker.bench.harness.plot_style import ACCENT, GREY, WARM, pyplot, save, tidy

FLEET_JSON = "fleet.json"
FLEET_PNG = "fleet.png"

HEADINGS = ("nodes", "images/s", "Redis cores", "steward cores", "connections", "call ms (median, p99)", "how")
README_HEADINGS = (
    "| CPU of Redis and steward | Redis, us per image | steward, us per image | Redis carries | steward carries | "
    "connections carry |\n|---|---|---|---|---|---|"
)


def title(report: dict[str, Any]) -> str:
    """What the table is about."""
    node = report["node"]
    return (
        f"Nodes of {node['processes']} processes doing {node['images_per_second']:g} images/s in chunks of "
        f"{node['chunk_images']}, load average {report['load_average_before']} to {report['load_average_after']}"
    )


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`."""
    return [
        (
            f"{one['nodes']:,}",
            f"{one['images_per_second']:,.0f}",
            f"{one['redis_cores']:.3f}",
            f"{one['steward_cores']:.3f}",
            f"{one['connections']:,}",
            "{:.2f}, {:.2f}".format(*one["call_ms"]) if "call_ms" in one else "-",
            "simulated" if one["simulated"] else "predicted",
        )
        for one in report["fleets"]
    ]


def remarks(report: dict[str, Any]) -> list[str]:
    """How far it goes, and what to do then."""
    carries, costs = report["carries"], report["costs"]
    rates, nodes, first = carries["images_per_second"], carries["nodes"], carries["first"]
    advice = {
        "redis": "give each part of the fleet a Redis of its own (MASKMILL_REDIS__URL), or faster single cores to this",
        "steward": "give each part of the fleet a Redis of its own: each then has a steward of its own",
        "connections": "raise maxclients of Redis and its limit of open files; fewer, larger processes need fewer",
    }
    return [
        f"an image costs Redis {costs['redis_us_per_image']:.0f} us in "
        f"{costs['redis_commands_per_image']:.1f} commands "
        f"and the leading steward {costs['steward_us_per_image']:.0f} us (measured at {costs['from_nodes']} nodes)",
        f"at {SATURATED:.0%} of a core Redis carries {rates['redis']:,} images/s ({nodes['redis']:,} such nodes), the "
        f"steward {rates['steward']:,} ({nodes['steward']:,}); 10,000 connections {nodes['connections']:,} nodes",
        f"what ends first is {first}: {advice[first]}",
    ]


def readme_line(report: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`."""
    carries, costs = report["carries"], report["costs"]
    rates = carries["images_per_second"]
    cells = (
        report["machine"]["cpu"],
        f"{costs['redis_us_per_image']:.0f}",
        f"{costs['steward_us_per_image']:.0f}",
        f"{rates['redis']:,} images/s",
        f"{rates['steward']:,} images/s",
        f"{carries['nodes']['connections']:,} nodes",
    )
    return f"| {' | '.join(cells)} |"


def draw(report: dict[str, Any], path: Path) -> Path:
    """Write the plot as PNG: cores needed over nodes, simulated as dots, predicted as lines, both axes logarithmic.

    Raises:
        SetupError: the file cannot be written.
    """
    costs, rate = report["costs"], report["node"]["images_per_second"]
    most = max(one["nodes"] for one in report["fleets"])
    with pyplot() as plt:
        figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained", facecolor="white")
        for name, colour in (("redis", ACCENT), ("steward", WARM)):
            per_node = rate * costs[f"{name}_us_per_image"] / 1e6
            axes.plot([1, most], [per_node, per_node * most], "--", color=colour, lw=1, label=f"{name}, predicted")
            seen = [one for one in report["simulations"] if one["carried"]]
            cores = [one[f"{name}_cores"] for one in seen]
            axes.plot([one["nodes"] for one in seen], cores, "o", color=colour, label=f"{name}, simulated")
        axes.axhline(SATURATED, color=GREY, lw=1)
        axes.text(1, SATURATED, f" saturated: {SATURATED:g} of a core", va="bottom", fontsize=9, color=GREY)
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="cores")
        axes.legend(frameon=False, loc="lower right")
        axes.set_title(title(report), loc="left", fontsize=9)
        tidy(axes, "both")
        return save(plt, figure, path)
