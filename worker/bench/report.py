"""From samples to the report: best, median, ratios; JSON file, rows of a table, one line for a README.

    {"schema_version", "benchmark", "machine", "weights", "results": [
        {"size", "streams", "threads", "rounds", ..., "contenders": [{"label", "samples", "best_seconds", ...}],
         "not_run": [{"label", "reason"}]}], "profiles": {size: {label: [{"node_type", "share", ...}]}}}

Seconds are wall time per image. Ratios are to the network without rewrites: `speedup` to it in f32, from best times;
`speedup_paired`, the median of the ratios within each round; `speedup_cpu`, from least CPU times, which others on the
machine disturb least; `speedup_same_arithmetic`, paired, to it in the same arithmetic.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.bench.harness.measure import Sample, best, least_cpu, median, paired_speedup
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize

SCHEMA_VERSION = 1
MODEL_JSON = "model.json"
MODEL_PNG = "model.png"

_MIB = 1024 * 1024

HEADINGS = (
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
"""Of `rows`."""


@dataclass(frozen=True)
class Measured:
    """One contender with its samples."""

    label: str
    engine: str
    role: str
    precision: str
    """As stored."""
    arithmetic: str
    """Of the float part."""
    samples: Sequence[Sample]
    peak_memory_bytes: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class NotRun:
    """A contender that is missing from the table, and why."""

    label: str
    reason: str


def result(measured: Sequence[Measured], not_run: Sequence[NotRun], threads: int) -> dict[str, Any]:
    """`contenders` and `not_run` of one size and layout.

    Args:
        measured: the plain network in f32 first.
        not_run: what is missing.
        threads: cores in use, for images/s per core.

    Raises:
        SetupError: the plain network, to which all are compared, is not among them.
    """
    plains = {m.arithmetic: m for m in measured if m.role == "plain"}
    if "f32" not in plains:
        reasons = "; ".join(f"{n.label}: {n.reason}" for n in not_run)
        raise SetupError(f"the network without rewrites did not run, so nothing can be compared with it: {reasons}")
    return {
        "contenders": [_row(m, plains, measured, threads) for m in measured],
        "not_run": [asdict(n) for n in not_run],
    }


def _row(m: Measured, plains: dict[str, Measured], measured: Sequence[Measured], threads: int) -> dict[str, Any]:
    plain = plains["f32"]
    row: dict[str, Any] = {
        "label": m.label,
        "engine": m.engine,
        "role": m.role,
        "precision": m.precision,
        "arithmetic": m.arithmetic,
        "n": len(m.samples),
        "best_seconds": round(best(m.samples), 5),
        "median_seconds": round(median(m.samples), 5),
        "images_per_second_per_core": round(1 / best(m.samples) / threads, 4),
        "peak_memory_bytes": m.peak_memory_bytes,
        "speedup": round(best(plain.samples) / best(m.samples), 4),
        "speedup_paired": round(paired_speedup(plain.samples, m.samples), 4),
        "speedup_cpu": round(least_cpu(plain.samples) / least_cpu(m.samples), 4),
        "cpu_seconds_per_image": round(least_cpu(m.samples), 5),
        "samples": [asdict(sample) for sample in m.samples],
        "facts": m.facts,
    }
    if same := plains.get(m.arithmetic):
        row["speedup_same_arithmetic"] = round(paired_speedup(same.samples, m.samples), 4)
    if m.role == "check":
        ours = next((o for o in measured if o.role == "ours" and m.label.endswith(f" {o.label}")), None)
        row["engine_over_benchmark_app"] = _over(ours, m) if ours else None
    return row


def _over(ours: Measured, check: Measured) -> dict[str, float]:
    """Our engine's time over benchmark_app's for the same file: 1.01 means that the engine takes 1 % longer."""
    return {
        "best": round(best(ours.samples) / best(check.samples), 4),
        "paired": round(paired_speedup(ours.samples, check.samples), 4),
        "cpu": round(least_cpu(ours.samples) / least_cpu(check.samples), 4),
    }


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of one size and layout, as text under `HEADINGS`; contenders that did not run are not in it."""
    return [
        (
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
        for row in result["contenders"]
    ]


def title(result: dict[str, Any]) -> str:
    """What was run where, in words."""
    streams, threads = result["streams"], result["threads"]
    return (
        f"{sides(result['size'])}, {counted(streams, 'stream')} x "
        f"{counted(threads // streams, 'thread')}, load average "
        f"{result['load_average_before']} to {result['load_average_after']}"
    )


def sides(size: int | str) -> str:
    """Height and width as a report holds them, in words: `512 x 512`, `1440 x 2560`."""
    return str(InputSize.parse(size)).replace("x", " x ")


def counted(number: int, word: str) -> str:
    """`1 stream`, `2 streams`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def remarks(report: dict[str, Any]) -> list[str]:
    """What must be read together with the table."""
    machine = report["machine"]
    lines = [
        f"{machine['cpu']}: {machine['isa_words']}; float part in {report['float_arithmetic']}; "
        f"weights: {report['weights']}"
    ]
    for one in report["results"]:
        where = f"{one['size']}, {one['streams']} x {one['threads'] // one['streams']}"
        lines += [f"not run ({where}): {missing['label']}: {missing['reason']}" for missing in one["not_run"]]
        for row in one["contenders"]:
            if over := row.get("engine_over_benchmark_app"):
                lines.append(
                    f"{where}: the engine takes {over['best']:.3f} x the time of {row['label']} (best), "
                    f"{over['paired']:.3f} x (paired), {over['cpu']:.3f} x its CPU time"
                )
    return lines


README_HEADINGS = "| CPU | size | streams x threads | network | s per image | images/s per core | x plain | x PyTorch |"


def readme_line(report: dict[str, Any], result: dict[str, Any]) -> str:
    """One line of Markdown under `README_HEADINGS`: our fastest network."""
    ours = min((r for r in result["contenders"] if r["role"] == "ours"), key=_best, default=None)
    if ours is None:
        return ""
    torch = next((r for r in result["contenders"] if r["label"] == "PyTorch eager"), None)
    cells = (
        f"{report['machine']['cpu']} ({report['machine']['isa_words']})",
        str(result["size"]),
        f"{result['streams']} x {result['threads'] // result['streams']}",
        ours["label"],
        f"{ours['best_seconds']:.3f}",
        f"{ours['images_per_second_per_core']:.3f}",
        f"{ours['speedup']:.2f}",
        f"{torch['best_seconds'] / ours['best_seconds']:.1f}" if torch else "-",
    )
    return f"| {' | '.join(cells)} |"


def _best(row: dict[str, Any]) -> float:
    return float(row["best_seconds"])


def check_writable(folder: Path) -> None:
    """Make the folder and try it, before a long measurement is made for nothing.

    Raises:
        SetupError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error


def write_json(report: dict[str, Any], folder: Path, name: str = MODEL_JSON) -> Path:
    """Write a report, all or nothing.

    Raises:
        SetupError: the folder cannot be written.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1, ensure_ascii=False)
            file.write("\n")
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    return path
