"""The report of `worker bench submit`: a table, sentences and a plot.

    {"schema_version", "benchmark": "submit", "machine", "results": [
        {"keys", "submit": {"listing", "whole", "idle_mib", "peak_mib", "curve", "published", ...}, "redis", "status",
         "recover", "cancel", "end", "retry"}], "recover_all": {...},
     "plain_celery": {"messages", "wall_seconds", "cpu_seconds", "redis_bytes", "redis_bytes_per_image"}}

The listing is not counted: the time of submitting is that of listing and submitting together, less that of the
made-up listing alone, on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

from worker.bench.harness.plot_style import ACCENT, GREY, PALE, WARM, pyplot, save
from worker.bench.report import Document, LoadAverages, Row, Table

SCHEMA_VERSION = 1

_HEADINGS = (
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
_README_HEADINGS = (
    "CPU",
    "keys",
    "submit, beside listing (CPU)",
    "producer memory",
    "Redis memory when done",
    "status",
    "cancel",
    "recover (CPU)",
    "plain Celery: submit (CPU)",
    "plain Celery: Redis",
)

_MB, _KB = 1e6, 1e3
_TEN = 10
_TARGET_MIB = 200
_SIZE_INCHES = (11.0, 4.6)


class Seconds(TypedDict):
    """Wall and CPU time."""

    wall_seconds: float
    cpu_seconds: float


class Submission(TypedDict):
    """What the producer measured while it submitted; memory is resident, in MiB."""

    job: str
    images: int
    chunks: int
    chunk_images: int
    published: int
    """Messages of the first window."""
    listing: Seconds
    """Of the made-up listing alone."""
    whole: Seconds
    """Of listing and submitting together."""
    idle_mib: float
    """Before the submission begins."""
    peak_mib: float
    curve: list[tuple[float, float]]
    """Seconds and MiB."""


class RedisUse(TypedDict):
    """Memory of all keys in Redis."""

    submitted_bytes: int
    messages: int
    """In the queues after submission."""
    done_bytes: int
    """With an outcome for every image, and a full part of the outcome log."""
    recovered_bytes: int
    """After recovery of a job that was half done."""


class StatusTimes(TypedDict):
    """Time of a status query, over `calls` queries."""

    calls: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Recovery(Seconds):
    """Recovery of a job with outcomes for half of its images."""

    peak_mib: float
    ok: int
    failed: int
    status: str


class RecoveryOfAll(Seconds):
    """Recovery of many jobs at once into an empty Redis."""

    jobs: int
    images: int
    """Of each job; half of them had an outcome."""
    done: int
    """Outcomes found, over all jobs."""
    requests: dict[str, int]
    """Requests to S3 by operation."""
    peak_mib: float


class Cancellation(TypedDict):
    """What a cancel costs its caller and Redis."""

    ms: float
    commands: int
    by_command: dict[str, int]
    status: str


class JobEnd(TypedDict):
    """What a steward needs to end a cancelled job."""

    wall_seconds: float
    steward_peak_mib: float


class Retry(TypedDict):
    """A retry of the failed images."""

    wall_seconds: float
    images: int
    peak_mib: float


class SubmitResult(TypedDict):
    """One job, from its submission to a retry after its end."""

    keys: int
    submit: Submission
    redis: RedisUse
    status: StatusTimes
    recover: Recovery
    cancel: Cancellation
    end: JobEnd
    retry: Retry


class PlainCelery(Seconds):
    """Plain Celery with one message per image."""

    messages: int
    redis_bytes: int
    redis_bytes_per_image: float


class SubmitDocument(Document, LoadAverages):
    """The JSON document."""

    results: list[SubmitResult]
    recover_all: RecoveryOfAll
    plain_celery: PlainCelery


@dataclass(frozen=True)
class SubmitReport:
    """See `report.BenchmarkReport`."""

    document: SubmitDocument
    name: ClassVar[str] = "submit"

    def tables(self) -> list[Table]:
        """Return one table: every job, then plain Celery for as many images."""
        results = self.document["results"]
        plain = [self._plain_cells(result["keys"]) for result in results]
        return [Table(_HEADINGS, [*(_cells(result) for result in results), *plain])]

    def remarks(self) -> list[str]:
        """Return the conditions of the measurement, and memory of the other actions."""
        found, machine = self.document["plain_celery"], self.document["machine"]
        lines = [
            f"{machine['cpu']}, load average {self.document['load_average_before']} to "
            f"{self.document['load_average_after']}; one core for each producer; the listing is made up, Redis and S3 "
            "are real",
            f"plain Celery is extrapolated from {found['messages']:,} messages of one image each: "
            f"{found['redis_bytes_per_image']:.0f} bytes and {found['wall_seconds'] / found['messages'] * 1e6:.0f} us "
            "each",
        ]
        for result in self.document["results"]:
            submit, recover, end = result["submit"], result["recover"], result["end"]
            lines.append(
                f"{result['keys']:,} keys: producer {submit['idle_mib']:.0f} MiB idle, recover "
                f"{recover['peak_mib']:.0f} MiB, steward at the end {end['steward_peak_mib']:.0f} MiB; recovered with "
                f"{result['keys'] // 2:,} outcomes, {result['redis']['recovered_bytes'] / _MB:.2f} MB in Redis"
            )
        return [*lines, self._recovery_of_all()]

    def _recovery_of_all(self) -> str:
        found = self.document["recover_all"]
        by_kind = ", ".join(f"{count:,} {name}" for name, count in sorted(found["requests"].items()))
        return (
            f"recover --all: {found['jobs']:,} jobs of {found['images']:,} images with {found['done']:,} outcomes in "
            f"{found['wall_seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU), {found['peak_mib']:.0f} MiB, "
            f"requests to S3: {by_kind}"
        )

    def readme_table(self) -> Table:
        """Return every job, with plain Celery for as many images."""
        return Table(_README_HEADINGS, [self._readme_row(result) for result in self.document["results"]])

    def draw(self, path: Path) -> Path:
        """Plot memory of the producer while it submits, and memory in Redis, with plain Celery for comparison."""
        with pyplot() as plt:
            figure, (left, right) = plt.subplots(1, 2, figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
            self._draw_producer(left)
            self._draw_redis(right)
            for axes in (left, right):
                axes.grid(axis="y", color="#dfe3e8", zorder=0)
                for side in ("top", "right"):
                    axes.spines[side].set_visible(False)
            cpu = self.document["machine"]["cpu"]
            figure.suptitle(f"Submitting on {cpu}", x=0.01, ha="left", weight="bold")
            return save(plt, figure, path)

    def _plain(self, keys: int) -> tuple[Seconds, float]:
        """Extrapolate the time and the bytes in Redis of plain Celery for this many images."""
        found = self.document["plain_celery"]
        scale = keys / max(1, found["messages"])
        seconds: Seconds = {
            "wall_seconds": found["wall_seconds"] * scale,
            "cpu_seconds": found["cpu_seconds"] * scale,
        }
        return seconds, found["redis_bytes"] * scale

    def _plain_cells(self, keys: int) -> Row:
        seconds, size = self._plain(keys)
        wall = seconds["wall_seconds"]
        sent = (f"{keys:,} plain Celery", f"{wall:.1f}", "-", f"{keys / wall:,.0f}", "-")
        return (*sent, f"{size / _KB:,.0f}", "-", f"{keys:,}", *("-",) * (len(_HEADINGS) - 8))

    def _readme_row(self, result: SubmitResult) -> Row:
        plain, size = self._plain(result["keys"])
        cancel, recover = result["cancel"], result["recover"]
        return (
            self.document["machine"]["cpu"],
            f"{result['keys']:,}",
            f"{beside_listing(result):.1f} s ({beside_listing(result, 'cpu_seconds'):.1f} s)",
            f"{result['submit']['peak_mib']:.0f} MiB",
            f"{result['redis']['done_bytes'] / _MB:.1f} MB",
            f"{result['status']['p50_ms']:.2f} ms",
            f"{cancel['ms']:.0f} ms, {cancel['commands']} commands",
            f"{recover['wall_seconds']:.1f} s ({recover['cpu_seconds']:.1f} s)",
            f"{plain['wall_seconds']:,.0f} s ({plain['cpu_seconds']:,.0f} s)",
            f"{size / _MB:,.0f} MB",
        )

    def _draw_producer(self, axes: Any) -> None:
        results = self.document["results"]
        for index, result in enumerate(results):
            curve = result["submit"]["curve"]
            whole = max(curve[-1][0], 1e-9)
            style = {"color": ACCENT, "alpha": 1 - 0.5 * index / max(1, len(results)), "zorder": 2}
            label = f"{result['keys']:,} keys ({whole:.0f} s with the listing)"
            axes.plot([at / whole * 100 for at, _ in curve], [mib for _, mib in curve], label=label, **style)
        axes.axhline(_TARGET_MIB, color=GREY, linestyle="--", linewidth=1)
        axes.text(100, _TARGET_MIB + 3, "target", ha="right", fontsize=9, color=GREY)
        axes.set_ylim(0, _TARGET_MIB + 25)
        axes.set_xlabel("progress of the submission, %")
        axes.set_ylabel("MiB")
        axes.set_title("resident memory of the producer", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=9, loc="lower right")

    def _draw_redis(self, axes: Any) -> None:
        results = self.document["results"]
        plain = [self._plain(result["keys"])[1] / _MB for result in results]
        series = (
            ("maskmill, submitted", [result["redis"]["submitted_bytes"] / _MB for result in results], PALE),
            ("maskmill, every image done", [result["redis"]["done_bytes"] / _MB for result in results], ACCENT),
            ("plain Celery, a message per image", plain, WARM),
        )
        width = 0.8 / len(series)
        for place, (label, values, colour) in enumerate(series):
            at = [index + (place - 1) * width for index in range(len(results))]
            axes.bar(at, values, width * 0.94, color=colour, label=label, zorder=2)
            for x, value in zip(at, values, strict=True):
                text = f"{value:.2g}" if value < _TEN else f"{value:,.0f}"
                axes.text(x, value * 1.08, text, ha="center", fontsize=9)
        axes.set_yscale("log")
        axes.set_xticks(range(len(results)), [f"{result['keys']:,} keys" for result in results])
        axes.set_ylabel("MB (logarithmic)")
        axes.set_ylim(top=axes.get_ylim()[1] * 50)  # room for the legend
        axes.set_title("memory in Redis for the job", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=9, loc="upper left")


def beside_listing(result: SubmitResult, clock: Literal["wall_seconds", "cpu_seconds"] = "wall_seconds") -> float:
    """Return the seconds of submitting, those of the listing excluded."""
    submit = result["submit"]
    return max(1e-9, submit["whole"][clock] - submit["listing"][clock])


def _cells(result: SubmitResult) -> Row:
    redis, status, cancel, recover = result["redis"], result["status"], result["cancel"], result["recover"]
    return (
        f"{result['keys']:,}",
        f"{beside_listing(result):.1f}",
        f"{beside_listing(result, 'cpu_seconds'):.1f}",
        f"{result['keys'] / beside_listing(result):,.0f}",
        f"{result['submit']['peak_mib']:.0f}",
        f"{redis['submitted_bytes'] / _KB:,.0f}",
        f"{redis['done_bytes'] / _MB:.2f}",
        str(redis["messages"]),
        f"{status['p50_ms']:.2f}/{status['p99_ms']:.2f}",
        f"{cancel['ms']:.1f} ms, {cancel['commands']} commands",
        f"{recover['wall_seconds']:.1f} ({recover['cpu_seconds']:.1f})",
        f"{result['end']['wall_seconds']:.1f}",
        f"{result['retry']['wall_seconds']:.1f}",
    )
