"""The report of `worker bench model`: from timings to ratios, tables and a plot.

    {"schema_version", "benchmark", "machine", "weights", "results": [
        {"size", "streams", "threads", "rounds", ..., "contenders": [{"label", "samples", "best_seconds", ...}],
         "not_run": [{"label", "reason"}]}], "profiles": {size: {label: [{"node_type", "share", ...}]}}}

Seconds are wall time per image. Ratios compare with the network without rewrites: `speedup` with f32, from best times;
`speedup_paired`, the median of the ratios within each round; `speedup_cpu`, from least CPU times, which other load on
the machine disturbs least; `speedup_same_arithmetic`, paired, with the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

from worker.bench.harness.measure import TurnTiming, best, least_cpu, median, paired_speedup
from worker.bench.harness.plot_style import ACCENT, GREY, INK, PALE, WARM, pyplot, save
from worker.bench.report import Document, LoadAverages, Row, Table, counted
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize

SCHEMA_VERSION = 1

_MIB = 1024 * 1024

_HEADINGS = (
    "network",
    "best s",
    "median s",
    "n",
    "images/s per core",
    "CPU s",
    "peak MiB",
    "x plain",
    "paired",
    "by CPU",
)
_README_HEADINGS = (
    "CPU",
    "size",
    "streams x threads",
    "network",
    "s per image",
    "images/s per core",
    "x plain",
    "x PyTorch",
)

_COLOURS = {"plain": GREY, "ours": ACCENT, "check": PALE, "other": WARM}
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


@dataclass(frozen=True)
class TimedContender:
    """One contender with its timings."""

    label: str
    engine: str
    role: str
    precision: str
    """As stored."""
    arithmetic: str
    """Of the float part."""
    timings: Sequence[TurnTiming]
    peak_memory_bytes: int
    facts: dict[str, Any]
    """What ran, as the contender itself describes it."""


class NotRun(TypedDict):
    """A contender that is missing from the table, and why."""

    label: str
    reason: str


class SampleRow(TypedDict):
    """One turn; see `TurnTiming`."""

    images: int
    wall_seconds: float
    cpu_seconds: float


class EngineRatios(TypedDict):
    """Time of our engine over that of benchmark_app for the same file: 1.01 means that the engine takes 1 % longer."""

    best: float
    paired: float
    cpu: float


class ContenderRow(TypedDict):
    """The figures of one contender; ratios as described at the top of this module."""

    label: str
    engine: str
    role: str
    precision: str
    arithmetic: str
    n: int
    best_seconds: float
    median_seconds: float
    images_per_second_per_core: float
    peak_memory_bytes: int
    speedup: float
    speedup_paired: float
    speedup_cpu: float
    cpu_seconds_per_image: float
    samples: list[SampleRow]
    facts: dict[str, Any]
    speedup_same_arithmetic: NotRequired[float]
    engine_over_benchmark_app: NotRequired[EngineRatios | None]
    """Of rows with the role `check`; None where the engine did not run the same file."""


class Comparison(TypedDict):
    """All contenders of one size and layout."""

    contenders: list[ContenderRow]
    not_run: list[NotRun]


class LayoutResult(Comparison, LoadAverages):
    """A comparison with the size and the layout it was made in."""

    size: int | str
    streams: int
    threads: int
    cpus: list[int]
    rounds: int


class NodeType(TypedDict):
    """The time of all nodes of one type in a profiled network."""

    node_type: str
    milliseconds: float
    """Per image."""
    share: float
    """Of the sum over all types."""
    nodes: int
    kernels: dict[str, float]
    """Execution type -> milliseconds per image."""


class ModelDocument(Document):
    """The JSON document."""

    weights: str
    picture: str
    bundle: str | None
    float_arithmetic: str
    results: list[LayoutResult]
    profiles: dict[str, dict[str, list[NodeType]]]
    """Size -> label -> node types, largest first."""


def compare(timed: Sequence[TimedContender], not_run: Sequence[NotRun], threads: int) -> Comparison:
    """Compute the figures of one size and layout.

    Args:
        timed: contenders with their timings, among them the plain network in f32.
        not_run: contenders without timings.
        threads: cores in use, for images/s per core.

    Raises:
        SetupError: the plain network, with which all are compared, did not run.
    """
    plains = {one.arithmetic: one for one in timed if one.role == "plain"}
    if "f32" not in plains:
        reasons = "; ".join(f"{missing['label']}: {missing['reason']}" for missing in not_run)
        raise SetupError(f"the network without rewrites did not run, so there is nothing to compare with: {reasons}")
    return {"contenders": [_contender_row(one, plains, timed, threads) for one in timed], "not_run": list(not_run)}


def _contender_row(
    one: TimedContender, plains: dict[str, TimedContender], timed: Sequence[TimedContender], threads: int
) -> ContenderRow:
    plain = plains["f32"]
    row: ContenderRow = {
        "label": one.label,
        "engine": one.engine,
        "role": one.role,
        "precision": one.precision,
        "arithmetic": one.arithmetic,
        "n": len(one.timings),
        "best_seconds": round(best(one.timings), 5),
        "median_seconds": round(median(one.timings), 5),
        "images_per_second_per_core": round(1 / best(one.timings) / threads, 4),
        "peak_memory_bytes": one.peak_memory_bytes,
        "speedup": round(best(plain.timings) / best(one.timings), 4),
        "speedup_paired": round(paired_speedup(plain.timings, one.timings), 4),
        "speedup_cpu": round(least_cpu(plain.timings) / least_cpu(one.timings), 4),
        "cpu_seconds_per_image": round(least_cpu(one.timings), 5),
        "samples": [
            {"images": timing.images, "wall_seconds": timing.wall_seconds, "cpu_seconds": timing.cpu_seconds}
            for timing in one.timings
        ],
        "facts": one.facts,
    }
    if same := plains.get(one.arithmetic):
        row["speedup_same_arithmetic"] = round(paired_speedup(same.timings, one.timings), 4)
    if one.role == "check":
        ours = next((other for other in timed if other.role == "ours" and one.label.endswith(f" {other.label}")), None)
        row["engine_over_benchmark_app"] = _engine_ratios(ours, one) if ours else None
    return row


def _engine_ratios(ours: TimedContender, check: TimedContender) -> EngineRatios:
    return {
        "best": round(best(ours.timings) / best(check.timings), 4),
        "paired": round(paired_speedup(ours.timings, check.timings), 4),
        "cpu": round(least_cpu(ours.timings) / least_cpu(check.timings), 4),
    }


@dataclass(frozen=True)
class ModelReport:
    """See `report.BenchmarkReport`."""

    document: ModelDocument
    name: ClassVar[str] = "model"

    def tables(self) -> list[Table]:
        """Return one table per size and layout; contenders that did not run are missing from it."""
        return [
            Table(_HEADINGS, [_cells(row) for row in one["contenders"]], title(one)) for one in self.document["results"]
        ]

    def remarks(self) -> list[str]:
        """Return machine and weights, contenders that did not run, and our engine compared with benchmark_app."""
        machine = self.document["machine"]
        lines = [
            f"{machine['cpu']}: {machine['isa_words']}; float part in {self.document['float_arithmetic']}; "
            f"weights: {self.document['weights']}"
        ]
        for one in self.document["results"]:
            where = f"{one['size']}, {one['streams']} x {one['threads'] // one['streams']}"
            lines += [f"not run ({where}): {missing['label']}: {missing['reason']}" for missing in one["not_run"]]
            for row in one["contenders"]:
                if ratios := row.get("engine_over_benchmark_app"):
                    lines.append(
                        f"{where}: the engine takes {ratios['best']:.3f} x the time of {row['label']} (best), "
                        f"{ratios['paired']:.3f} x (paired), {ratios['cpu']:.3f} x its CPU time"
                    )
        return lines

    def readme_table(self) -> Table:
        """Return our fastest network in each size and layout."""
        rows = [self._readme_row(one) for one in self.document["results"]]
        return Table(_README_HEADINGS, [row for row in rows if row])

    def _readme_row(self, one: LayoutResult) -> Row:
        machine = self.document["machine"]
        ours = min((row for row in one["contenders"] if row["role"] == "ours"), key=_best_seconds, default=None)
        if ours is None:
            return ()
        torch = next((row for row in one["contenders"] if row["label"] == "PyTorch eager"), None)
        return (
            f"{machine['cpu']} ({machine['isa_words']})",
            str(one["size"]),
            f"{one['streams']} x {one['threads'] // one['streams']}",
            ours["label"],
            f"{ours['best_seconds']:.3f}",
            f"{ours['images_per_second_per_core']:.3f}",
            f"{ours['speedup']:.2f}",
            f"{torch['best_seconds'] / ours['best_seconds']:.1f}" if torch else "-",
        )

    def draw(self, path: Path) -> Path:
        """Plot the time per image of every contender, one panel per size and layout."""
        results = self.document["results"]
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
            facts = self.document["machine"]
            figure.suptitle(f"BiRefNet-lite on {facts['cpu']} ({facts['isa_words']})", x=0.01, ha="left", weight="bold")
            _legend(figure, plt, results)
            return save(plt, figure, path)


def title(one: LayoutResult) -> str:
    """Describe size, layout and load in words."""
    streams, threads = one["streams"], one["threads"]
    return (
        f"{InputSize.parse(one['size'])}, {counted(streams, 'stream')} x "
        f"{counted(threads // streams, 'thread')}, load average "
        f"{one['load_average_before']} to {one['load_average_after']}"
    )


def _cells(row: ContenderRow) -> Row:
    return (
        row["label"],
        f"{row['best_seconds']:.3f}",
        f"{row['median_seconds']:.3f}",
        str(row["n"]),
        f"{row['images_per_second_per_core']:.3f}",
        f"{row['cpu_seconds_per_image']:.3f}",
        f"{row['peak_memory_bytes'] // _MIB}",
        f"{row['speedup']:.2f}",
        f"{row['speedup_paired']:.2f}",
        f"{row['speedup_cpu']:.2f}",
    )


def _best_seconds(row: ContenderRow) -> float:
    return row["best_seconds"]


def _panel(axes: Any, one: LayoutResult) -> None:
    """Draw best times as bars and every turn as a dot, with time and ratio as text."""
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
        f"{InputSize.parse(one['size'])}, {counted(streams, 'stream')} x {counted(threads // streams, 'thread')}, "
        f"{one['rounds']} rounds in turn, load average {one['load_average_before']} to {one['load_average_after']}",
        loc="left",
        fontsize=10,
    )
    axes.grid(axis="x", color="#dfe3e8", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _legend(figure: Any, plt: Any, results: Sequence[LayoutResult]) -> None:
    roles = {row["role"] for one in results for row in one["contenders"]}
    patches = [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=_LEGEND[role])
        for role, colour in _COLOURS.items()
        if role in roles
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
