"""The report of a run: `chaos.json` with everything, `chaos.md` to read."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.inject import Done

_OUTCOMES = ("ok", "failed", "dead", "cancelled", "skipped")
_EVENT = re.compile(r"event=(\w+)")
_AGAIN = re.compile(r"event=chunks_republished job=\S+ chunks=\[([^\]]*)\]")
_VERDICT = re.compile(r"verdict=(\w+)")
_GAUGES = ("connections", "redis_bytes", "redis_fds", "redis_rss", "s3_fds", "s3_rss")
_GAUGES += tuple(
    f"{role}_{what}" for role in ("supervisor", "parent", "child", "steward") for what in ("count", "fds", "rss")
)


def recoveries(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Per kind of fault: how often, what it hit, how long until that was back."""
    found = []
    for kind in sorted({one.kind for one in done}):
        ours = [one for one in done if one.kind == kind]
        seconds = [one.wait.seconds for one in ours if one.wait.seconds is not None]
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
    """What the nodes say themselves."""
    events: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    again = 0
    for log in logs:
        for line in log.read_text("utf-8", errors="replace").splitlines():
            events.update(_EVENT.findall(line))
            verdicts.update(_VERDICT.findall(line))
            again += sum(len(chunks.split(",")) for chunks in _AGAIN.findall(line))
    return {"events": dict(events), "dropped": dict(verdicts), "chunks_republished": again}


def flat(gauges: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Medians of the first and the last quarter of the run, and the most there ever was."""
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
    """Both files."""
    data, text = folder / "chaos.json", folder / "chaos.md"
    data.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    text.write_text("\n".join(_markdown(found)) + "\n", "utf-8")
    return [data, text]


def _markdown(found: dict[str, Any]) -> list[str]:
    account, log = found["account"], found["log"]
    kills = max(1, found["kills"])
    outcomes = " | ".join(str(account["outcomes"].get(kind, 0)) for kind in _OUTCOMES)
    lines = [
        f"# Chaos: {found['minutes']:g} minutes, seed {found['seed']}, reconciler {found['reconciler']}",
        "",
        f"**{'Nothing lost' if not account['wrong'] else 'NOT CLEAN'}**: {found['kills']} kills, "
        f"{found['faults']} faults, {len(account['jobs'])} jobs, {account['submitted']:,} images, "
        f"{account['lost']} lost.",
        "",
        f"Started {found['started']}, took {found['seconds']:.0f} s with the drain. {found['cluster']}",
        "",
        "## Every image",
        "",
        f"| submitted | {' | '.join(_OUTCOMES)} | without outcome |",
        f"|{'---|' * (len(_OUTCOMES) + 2)}",
        f"| {account['submitted']} | {outcomes} | {account['lost']} |",
        "",
        "## Every execution",
        "",
        f"- inputs read {account['fetched']}, {account['fetched_again']} beyond one for each image done: "
        f"{account['fetched_again'] / kills:.2f} per kill",
        f"- outputs written again {account['written_again']}: {account['written_again'] / kills:.2f} per kill; "
        f"one output {account['most_writes']} times at most",
        f"- chunks that had vanished from the broker and were published again: {log['chunks_republished']}",
        f"- deliveries that were dropped, by verdict: {log['dropped']}",
        "",
        "## Faults",
        "",
        "Recovery: from the fault until every chunk its victim held was complete (Redis: until the next image was; "
        "steward: until another led, if it did). A chunk itself takes a second or two.",
        "",
        "| fault | times | chunks held | measured | median s | max s |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["recoveries"]:
        lines.append(f"| {' | '.join('-' if value is None else str(value) for value in row.values())} |")
    lines += [
        "",
        f"Longest from publication to the end of a chunk: {', '.join(f'{s:.1f} s' for s, _ in found['longest'][:5])}.",
        "",
        "## What must stay flat",
        "",
        "| what | first quarter | last quarter | most |",
        "|---|---|---|---|",
    ]
    for name, row in found["flat"].items():
        lines.append(f"| {name} | {row['first']:.0f} | {row['last']:.0f} | {row['most']:.0f} |")
    lines += ["", "## What is wrong", "", *([f"- {text}" for text in account["wrong"]] or ["Nothing."]), ""]
    lines += ["## Timings", "", *(f"- {name} = {value}" for name, value in found["settings"].items())]
    return lines
