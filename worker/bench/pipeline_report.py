"""The report of `worker bench pipeline`: tables, sentences and a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, PALE, WARM, pyplot, save, tidy
from worker.bench.report import Document, JpegFacts, LoadAverages, Network, Table, counted

SCHEMA_VERSION = 1

_HEADINGS = ("stage", "wall ms", "CPU ms")
_README_HEADINGS = (
    "CPU",
    "network",
    "cores",
    "S3 to S3, images/s",
    "inference ceiling",
    "ratio",
    "ratio, Redis and S3 apart",
    "cores busy",
    "CPU ms outside inference: pixels + elsewhere",
)

_ORDER = ("check", "fetch", "decode", "prepare", "infer", "render", "hold", "store", "record")
"""Stages in the order in which an image passes through them."""


class RoundRow(TypedDict):
    """One job between two turns of the inference ceiling."""

    images: int
    chunk_images: int
    seconds: float
    images_per_second: float
    bare_images_per_second: list[float]
    """Of the turn before and the turn after."""
    ratio: float
    """Rate of the job over the mean of the two turns."""


class StageTimes(TypedDict):
    """Milliseconds per image in one stage."""

    wall_ms: float
    cpu_ms: float


class CpuTimes(TypedDict):
    """CPU milliseconds per image."""

    inference_ms: float
    bare_ms: float
    """Of the network alone, in a turn of the inference ceiling."""
    pixels_ms: float
    """Decode, resize and render."""
    elsewhere_ms: float
    """All other CPU time of the workers: queue, ledger, S3 client, glue."""
    services_ms: float
    """Redis and S3 servers, beyond what they take while no job runs."""
    idle_services_ms: float
    """What they take while no job runs."""


class StartUp(TypedDict, total=False):
    """Seconds from `worker start` to the first image; empty if not measured."""

    cold_seconds: float
    cached_seconds: float


class Summary(TypedDict):
    """The figures of all rounds."""

    rounds: list[RoundRow]
    ratio: float
    """Median over the rounds."""
    ratio_services_apart: float
    """The same, without the core time that Redis and S3 took for the jobs."""
    images_per_second: float
    bare_images_per_second: float
    busy: float | None
    """Share of the cores in use while chunks waited; None if chunks waited too briefly to tell."""
    stages: dict[str, StageTimes]
    cpu: CpuTimes


class PipelineDocument(Document, LoadAverages, Summary):
    """The JSON document."""

    network: Network
    arithmetic: str
    processes: int
    streams: int
    cores: int
    picture: JpegFacts
    start_up: StartUp
    peak_memory_mib: list[int]
    """One per model process."""


@dataclass(frozen=True)
class PipelineReport:
    """See `report.BenchmarkReport`."""

    document: PipelineDocument
    name: ClassVar[str] = "pipeline"

    def tables(self) -> list[Table]:
        """Return the stages in the order in which an image passes through them."""
        stages = self.document["stages"]
        rows = [
            (name, f"{stages[name]['wall_ms']:.1f}", f"{stages[name]['cpu_ms']:.1f}")
            for name in _ORDER
            if name in stages
        ]
        return [Table(_HEADINGS, rows, self._title())]

    def remarks(self) -> list[str]:
        """Return rates, CPU time per image, memory and start-up time."""
        found, cpu, start = self.document, self.document["cpu"], self.document["start_up"]
        busy = "" if found["busy"] is None else f"; cores busy {found['busy']:.2f} while chunks waited"
        lines = [
            f"S3 to S3 {found['images_per_second']:.2f} images/s, inference ceiling "
            f"{found['bare_images_per_second']:.2f}: {found['ratio']:.3f} of it "
            f"({found['ratio_services_apart']:.3f} without the core time of Redis and S3){busy}",
            f"CPU per image: inference {cpu['inference_ms']:.0f} ms (network alone {cpu['bare_ms']:.0f}), decode + "
            f"resize + render {cpu['pixels_ms']:.1f} ms, elsewhere {cpu['elsewhere_ms']:.1f} ms; Redis and S3 servers "
            f"{cpu['services_ms']:.1f} ms",
            f"peak memory of a process: {max(found['peak_memory_mib'], default=0)} MiB",
        ]
        if start:
            lines.append(
                f"from `worker start` to the first image: {start['cold_seconds']:.1f} s without a cache, "
                f"{start['cached_seconds']:.1f} s with"
            )
        return lines

    def readme_table(self) -> Table:
        """Return rate, ratio and CPU time per image."""
        found, network, cpu = self.document, self.document["network"], self.document["cpu"]
        row = (
            found["machine"]["cpu"],
            f"{network['name']} {network['size']} {network['precision']}",
            str(found["cores"]),
            f"{found['images_per_second']:.2f}",
            f"{found['bare_images_per_second']:.2f}",
            f"{found['ratio']:.3f}",
            f"{found['ratio_services_apart']:.3f}",
            "-" if found["busy"] is None else f"{found['busy']:.2f}",
            f"{cpu['pixels_ms']:.0f} + {cpu['elsewhere_ms']:.0f}",
        )
        return Table(_README_HEADINGS, [row])

    def draw(self, path: Path) -> Path:
        """Plot every round beside its two turns, and the CPU time per image."""
        with pyplot() as plt:
            figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", facecolor="white")
            rounds = self.document["rounds"]
            for number, one in enumerate(rounds):
                bare = one["bare_images_per_second"]
                left.bar(number - 0.2, sum(bare) / len(bare), 0.36, color=GREY, zorder=2)
                left.bar(number + 0.2, one["images_per_second"], 0.36, color=ACCENT, zorder=2)
                left.text(number + 0.2, one["images_per_second"], f"{one['ratio']:.3f}", ha="center", va="bottom")
            left.set_xticks(range(len(rounds)), [f"round {number + 1}" for number in range(len(rounds))])
            left.set_ylabel("images per second")
            left.set_title("inference ceiling before and after (grey), S3 to S3 (blue)", loc="left", fontsize=10)
            tidy(left, "y")
            self._draw_cpu(right)
            figure.suptitle(self._title(), x=0.01, ha="left", fontsize=9)
            return save(plt, figure, path)

    def _draw_cpu(self, axes: Any) -> None:
        """Draw one bar per part, without inference, which would dwarf the others."""
        stages, cpu = self.document["stages"], self.document["cpu"]
        colours = dict.fromkeys(("decode", "prepare", "render"), WARM)
        colours |= dict.fromkeys(("fetch", "store", "record"), PALE)
        parts = [(name, stages[name]["cpu_ms"], colour) for name, colour in colours.items() if name in stages]
        around = sum(milliseconds for _, milliseconds, colour in parts if colour == PALE)
        parts.append(("rest", max(0.0, cpu["elsewhere_ms"] - around), GREY))
        parts.append(("Redis, S3", cpu["services_ms"], "#dfe3e8"))
        for place, (_, milliseconds, colour) in enumerate(parts):
            axes.barh(place, milliseconds, color=colour, zorder=2)
            axes.text(milliseconds, place, f" {milliseconds:.1f}", va="center", fontsize=9)
        axes.set_yticks(range(len(parts)), [name for name, _, _ in parts])
        axes.invert_yaxis()
        axes.set_xlabel(f"CPU milliseconds per image outside inference ({cpu['inference_ms']:.0f} ms)")
        tidy(axes, "x")

    def _title(self) -> str:
        found, network, picture = self.document, self.document["network"], self.document["picture"]
        return (
            f"{network['name']} {network['size']} {network['precision']} ({found['arithmetic']}), "
            f"{found['processes']} process{'' if found['processes'] == 1 else 'es'}, "
            f"{counted(found['streams'], 'stream')} on {counted(found['cores'], 'core')}, "
            f"{picture['width']} x {picture['height']} JPEG to PNG mask, load average "
            f"{found['load_average_before']} to {found['load_average_after']}"
        )
