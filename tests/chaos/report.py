"""The report of a run: `chaos.json` with everything, `chaos.md` to read."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos import repeats
from chaos.faults import KILL
from chaos.inject import Injected

_OUTCOMES = ("ok", "failed", "dead", "cancelled", "skipped")
_EVENT = re.compile(r"event=(\w+)")
_REPUBLISHED = re.compile(r"event=chunks_republished job=\S+ chunks=\[([^\]]*)\]")
_VERDICT = re.compile(r"verdict=(\w+)")
_GAUGES = ("connections", "redis_bytes", "redis_fds", "redis_rss", "s3_fds", "s3_rss")
_GAUGES += tuple(
    f"{role}_{what}"
    for role in ("supervisor", "consumer", "model_process", "steward")
    for what in ("count", "fds", "rss")
)


def _control(off: str | None) -> str:
    return "" if off is None else f", without {off} (a control run)"


def recoveries(done: Sequence[Injected]) -> list[dict[str, Any]]:
    """Return for each kind of fault its number, the chunks of its victims and the recovery times in seconds."""
    found = []
    for kind in sorted({one.kind for one in done}):
        ours = [one for one in done if one.kind == kind]
        seconds = [one.recovery.seconds for one in ours if one.recovery.seconds is not None]
        found.append(
            {
                "kind": kind,
                "times": len(ours),
                "chunks_held": sum(one.chunks for one in ours),
                "measured": len(seconds),
                "median_seconds": round(statistics.median(seconds), 2) if seconds else None,
                "max_seconds": round(max(seconds), 2) if seconds else None,
            }
        )
    return found


def logged(logs: Sequence[Path]) -> dict[str, Any]:
    """Return the numbers of log events, verdicts and republished chunks in the logs of the nodes."""
    events: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    republished = 0
    for log in logs:
        for line in log.read_text("utf-8", errors="replace").splitlines():
            events.update(_EVENT.findall(line))
            verdicts.update(_VERDICT.findall(line))
            republished += sum(len(chunks.split(",")) for chunks in _REPUBLISHED.findall(line))
    return {"events": dict(events), "dropped": dict(verdicts), "chunks_republished": republished}


def flat(gauges: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return for each gauge the medians of the first and the last quarter of the run, and the maximum."""
    quarter = max(1, len(gauges) // 4)
    found = {}
    for name in _GAUGES:
        first = [gauge[name] for gauge in gauges[:quarter] if name in gauge]
        last = [gauge[name] for gauge in gauges[-quarter:] if name in gauge]
        if first and last:
            most = max(gauge[name] for gauge in gauges if name in gauge)
            found[name] = {"first": statistics.median(first), "last": statistics.median(last), "most": most}
    return found


def write(folder: Path, found: dict[str, Any]) -> list[Path]:
    """Write both files and return their paths."""
    data, text = folder / "chaos.json", folder / "chaos.md"
    data.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    text.write_text("\n".join(_markdown(found)) + "\n", "utf-8")
    return [data, text]


def _row(row: Mapping[str, Any]) -> str:
    return f"| {' | '.join('-' if value is None else str(value) for value in row.values())} |"


def _markdown(found: dict[str, Any]) -> list[str]:
    account, log = found["account"], found["log"]
    kills = max(1, found["kills"])
    killed, again = repeats.per_kill(account["repeats"], KILL)
    longest = ", ".join(f"{seconds:.1f} s" for seconds, _ in found["longest"][:5])
    outcomes = " | ".join(str(account["outcomes"].get(kind, 0)) for kind in _OUTCOMES)
    lines = [
        f"# Chaos: {found['minutes']:g} minutes, seed {found['seed']}{_control(found['off'])}",
        "",
        f"**{'Nothing lost' if not account['wrong'] else 'NOT CLEAN'}**: {found['kills']} kills, "
        f"{found['faults']} faults, {len(account['jobs'])} jobs, {account['submitted']:,} images, "
        f"{account['lost']} lost.",
        "",
        f"Started {found['started']}, took {found['seconds']:.0f} s including the drain. {found['cluster']}",
        "",
        "## Every image",
        "",
        f"| submitted | {' | '.join(_OUTCOMES)} | without outcome |",
        f"|{'---|' * (len(_OUTCOMES) + 2)}",
        f"| {account['submitted']} | {outcomes} | {account['lost']} |",
        "",
        f"Jobs that too few replicas confirmed: {account['unconfirmed']}; of these, {account['gone']} were gone "
        f"after a failover, and {account['recovered']} were recovered from S3 (`producer recover`).",
        "",
        "## Every execution",
        "",
        f"- inputs read {account['fetched']}, {account['fetched_again']} of them again: "
        f"{account['fetched_again'] / kills:.2f} per kill, all causes together",
        f"- {killed} kills of processes that hold images: {again} inputs read again because of them, "
        f"{again / max(1, killed):.2f} per kill. A process has {found['in_flight']} images in flight",
        f"- outputs written again {account['written_again']}: {account['written_again'] / kills:.2f} per kill; "
        f"one output {account['most_writes']} times at most",
        f"- lost chunks that were published again: {log['chunks_republished']}",
        f"- dropped deliveries by verdict: {log['dropped']}",
        "",
        "Why: a fault of the process that made the request before, of its host, of S3, or of Redis or a clock.",
        "",
        "| fault | times | inputs read again | per fault | output existed | outputs written again | output existed |",
        "|---|---|---|---|---|---|---|",
        *(_row(row) for row in account["repeats"]),
        "",
        "## Faults",
        "",
        "Recovery time: from the fault until every chunk of its victim is complete (Redis: until the next image; "
        "leading steward: until another leads). A chunk itself takes 1 to 2 s.",
        "",
        "| fault | times | chunks held | measured | median s | max s |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(row) for row in found["recoveries"]]
    lines += [f"\nLeft out: {kind}: {why}." for kind, why in found["left_out"].items()]
    lines += [
        "",
        f"Longest times from publication to the end of a chunk: {longest}.",
        "",
        "## Resources, which must stay flat",
        "",
        "| resource | first quarter | last quarter | most |",
        "|---|---|---|---|",
    ]
    for name, row in found["flat"].items():
        lines.append(f"| {name} | {row['first']:.0f} | {row['last']:.0f} | {row['most']:.0f} |")
    lines += ["", "## Problems", "", *([f"- {text}" for text in account["wrong"]] or ["None."]), ""]
    lines += ["## Timings", "", *(f"- {name} = {value}" for name, value in found["settings"].items())]
    return lines
