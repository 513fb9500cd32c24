"""Control runs: a short run for each safeguard, which finds something wrong without it and nothing with it.

    python -m chaos.controls                all of them, with and without their safeguard
    python -m chaos --control once          one, with its safeguard
    python -m chaos --control once --off once

Each has only the faults that its safeguard is for, so that two minutes suffice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from chaos.load import BACKLOG_IMAGES, USUAL_SIZES


@dataclass(frozen=True)
class Control:
    """One safeguard, and the faults that it is for."""

    kinds: Mapping[str, int]
    """Fault -> relative frequency."""

    finds: str
    """What goes wrong without it."""

    redis: Literal["single", "sentinels"] = "single"
    minutes: float = 0.6
    per_minute: float = 12.0
    sizes: Sequence[int] = USUAL_SIZES
    """Images of a job."""
    backlog: int = BACKLOG_IMAGES


CONTROLS = {
    "reconciler": Control(
        {"consumer-gap": 1}, "a message that its worker took along is lost, and its job does not end"
    ),
    "watchdog": Control({"model_process-hang": 1}, "a process that hangs keeps its chunk, and its job does not end"),
    "returned": Control({"s3-busy": 1}, "chunks that were given back while S3 was away are never published again"),
    "skip": Control({"consumer-sigkill": 1}, "outputs that a killed worker had written are made again"),
    "recheck": Control({"failover-behind": 1}, "outputs whose outcomes a failover lost are made again", "sentinels"),
    "verdict": Control(
        {"failover-behind": 1, "consumer-sigkill": 1}, "a second copy of a message makes outputs again", "sentinels"
    ),
    # Large jobs, several at a time: a node must come back before the job ends of which it has images.
    "once": Control(
        {"network-cut": 1},
        "outcomes of a node that was away count twice",
        "sentinels",
        minutes=1,
        sizes=(200,),
        backlog=800,
    ),
    # Small jobs: some are submitted in the two seconds before each failover.
    "wait": Control(
        {"failover-behind": 1}, "a job that counted as submitted is gone", "sentinels", sizes=(24,), backlog=200
    ),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(CONTROLS)))
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of all runs.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("controls"), show_default=True)
def main(names: Sequence[str], seed: int, output: Path) -> None:
    """Run the controls NAMES, by default all. Exit code 1 if one does not show what its safeguard is for."""
    failed = False
    click.echo("| safeguard | with it | without it | finds |\n|---|---|---|---|")
    for name in names or CONTROLS:
        with_it, without = (
            _run(name, seed, output / f"{name}-{text}", off) for text, off in (("on", ()), ("off", (name,)))
        )
        failed = failed or bool(with_it[0]) or not without[0]
        click.echo(f"| {name} | {with_it[1]} | {without[1]} | {CONTROLS[name].finds} |")
    sys.exit(int(failed))


def _run(name: str, seed: int, output: Path, off: Sequence[str]) -> tuple[list[str], str]:
    """Return what a run found wrong, and the cell of the table."""
    began = time.monotonic()
    options = ["--control", name, "--seed", str(seed), "--output", str(output)]
    command = [sys.executable, "-m", "chaos", *options, *(part for one in off for part in ("--off", one))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
    found = json.loads((output / "chaos.json").read_text("utf-8"))["account"]["wrong"]
    first = f"{len(found)} wrong, such as: {found[0]}" if found else "nothing wrong"
    return found, f"{first} ({seconds:.0f} s)"


if __name__ == "__main__":
    main()
