"""The report of `worker bench fleet`: tables, advice and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, WARM, pyplot, save, tidy
from worker.bench.report import Document, LoadAverages, Row, Table

SCHEMA_VERSION = 1
SATURATED = 0.8
"""Share of a core from which Redis or the steward counts as saturated: above it, waiting times grow without bound."""

_HEADINGS = ("nodes", "images/s", "Redis cores", "steward cores", "connections", "call ms (median, p99)", "how")
_README_HEADINGS = (
    "CPU of Redis and steward",
    "Redis, us per image",
    "steward, us per image",
    "Redis carries",
    "steward carries",
    "connections carry",
)

_ADVICE = {
    "redis": "give each part of the fleet its own Redis (MASKMILL_REDIS__URL), or run this one on a faster core",
    "steward": "give each part of the fleet its own Redis: each part then has its own steward",
    "connections": "raise maxclients of Redis and its limit of open files; fewer, larger processes need fewer",
}


class NodeShape(TypedDict):
    """A node of the fleet."""

    processes: int
    images_per_second: float
    chunk_images: int


class Fleet(TypedDict):
    """A number of nodes and what Redis and steward need for it, simulated or predicted."""

    nodes: int
    processes: int
    simulated: bool
    images_per_second: float
    redis_cores: float
    steward_cores: float
    connections: int
    carried: NotRequired[bool]
    """Whether the simulation kept up. This and the following fields: simulated fleets only."""
    redis_commands_per_image: NotRequired[float]
    call_ms: NotRequired[list[float]]
    """Of ledger calls: median and 99th percentile."""
    lag_seconds: NotRequired[float]


class Costs(TypedDict):
    """CPU time and commands per image, from a simulation with `from_nodes` nodes."""

    redis_us_per_image: float
    steward_us_per_image: float
    redis_commands_per_image: float
    from_nodes: int


class Capacity(TypedDict):
    """Where each part saturates: `redis`, `steward`, `connections`."""

    images_per_second: dict[str, int]
    nodes: dict[str, int]
    first: str
    """The part that saturates first."""
    chunk_seconds: float


class FleetDocument(Document, LoadAverages):
    """The JSON document."""

    node: NodeShape
    fleets: list[Fleet]
    """One per number of nodes asked for."""
    simulations: list[Fleet]
    """All that were simulated, also those that did not keep up."""
    costs: Costs
    carries: Capacity


@dataclass(frozen=True)
class FleetReport:
    """See `report.BenchmarkReport`."""

    document: FleetDocument
    name: ClassVar[str] = "fleet"

    def tables(self) -> list[Table]:
        """Return one table with all fleets."""
        return [Table(_HEADINGS, [_cells(one) for one in self.document["fleets"]], self._title())]

    def remarks(self) -> list[str]:
        """Return cost per image, capacity, and what to do at its limit."""
        carries, costs = self.document["carries"], self.document["costs"]
        rates, nodes, first = carries["images_per_second"], carries["nodes"], carries["first"]
        return [
            f"an image costs Redis {costs['redis_us_per_image']:.0f} us in "
            f"{costs['redis_commands_per_image']:.1f} commands "
            f"and the leading steward {costs['steward_us_per_image']:.0f} us (measured at {costs['from_nodes']} nodes)",
            f"at {SATURATED:.0%} of a core Redis carries {rates['redis']:,} images/s ({nodes['redis']:,} such nodes), "
            f"the steward {rates['steward']:,} ({nodes['steward']:,}); 10,000 connections are enough for "
            f"{nodes['connections']:,} nodes",
            f"the first limit is {first}: {_ADVICE[first]}",
        ]

    def readme_table(self) -> Table:
        """Return cost per image and capacity."""
        carries, costs = self.document["carries"], self.document["costs"]
        rates = carries["images_per_second"]
        row = (
            self.document["machine"]["cpu"],
            f"{costs['redis_us_per_image']:.0f}",
            f"{costs['steward_us_per_image']:.0f}",
            f"{rates['redis']:,} images/s",
            f"{rates['steward']:,} images/s",
            f"{carries['nodes']['connections']:,} nodes",
        )
        return Table(_README_HEADINGS, [row])

    def draw(self, path: Path) -> Path:
        """Plot cores over nodes: simulated as dots, predicted as lines, both axes logarithmic."""
        costs, rate = self.document["costs"], self.document["node"]["images_per_second"]
        most = max(one["nodes"] for one in self.document["fleets"])
        seen = [one for one in self.document["simulations"] if one.get("carried")]
        nodes = [one["nodes"] for one in seen]
        series = (
            ("redis", ACCENT, costs["redis_us_per_image"], [one["redis_cores"] for one in seen]),
            ("steward", WARM, costs["steward_us_per_image"], [one["steward_cores"] for one in seen]),
        )
        with pyplot() as plt:
            figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained", facecolor="white")
            for name, colour, us_per_image, cores in series:
                per_node = rate * us_per_image / 1e6
                axes.plot([1, most], [per_node, per_node * most], "--", color=colour, lw=1, label=f"{name}, predicted")
                axes.plot(nodes, cores, "o", color=colour, label=f"{name}, simulated")
            axes.axhline(SATURATED, color=GREY, lw=1)
            axes.text(1, SATURATED, f" saturated: {SATURATED:g} of a core", va="bottom", fontsize=9, color=GREY)
            axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="cores")
            axes.legend(frameon=False, loc="lower right")
            axes.set_title(self._title(), loc="left", fontsize=9)
            tidy(axes, "both")
            return save(plt, figure, path)

    def _title(self) -> str:
        node = self.document["node"]
        return (
            f"Nodes of {node['processes']} processes at {node['images_per_second']:g} images/s in chunks of "
            f"{node['chunk_images']}, load average {self.document['load_average_before']} to "
            f"{self.document['load_average_after']}"
        )


def _cells(one: Fleet) -> Row:
    return (
        f"{one['nodes']:,}",
        f"{one['images_per_second']:,.0f}",
        f"{one['redis_cores']:.3f}",
        f"{one['steward_cores']:.3f}",
        f"{one['connections']:,}",
        "{:.2f}, {:.2f}".format(*one["call_ms"]) if "call_ms" in one else "-",
        "simulated" if one["simulated"] else "predicted",
    )
