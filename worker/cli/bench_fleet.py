"""`worker bench fleet`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, say, show, write
from worker.contract.console import Exit

_NODES = (1, 10, 100, 1000)
_SECONDS, _QUICK_SECONDS = 30.0, 8.0

EPILOG = """\b
Examples:
  worker bench fleet --quick --output bench
  worker bench fleet --nodes 10,100,1000 --processes 2 --rate 40 --output bench      nodes of 64 cores, say
"""


def _nodes(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{text!r}: numbers of nodes with commas between them, as 1,10,100")
    return tuple(sorted({int(word) for word in words}))


@click.command("fleet", epilog=EPILOG)
@click.option(
    "--nodes", default=",".join(map(str, _NODES)), show_default=True, callback=_nodes, help="Numbers of nodes."
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes of a node."
)
@click.option(
    "--rate", type=click.FloatRange(min=0.01), default=10.0, show_default=True, help="Images per second of a node."
)
@click.option("--seconds", type=click.FloatRange(min=2), help=f"For each number of nodes. [{_SECONDS:g}]")
@click.option("--quick", is_flag=True, help=f"{_QUICK_SECONDS:g} s for each number of nodes.")
@OUTPUT
def fleet_command(
    *, nodes: tuple[int, ...], processes: int, rate: float, seconds: float | None, quick: bool, output: Path
) -> int:
    """How many nodes one Redis and one steward carry.

    Simulated workers speak the real protocol to an embedded Redis, without images, as many as this machine carries;
    larger fleets are predicted from what an image costs Redis and the steward.
    """
    measure(
        output,
        nodes=nodes,
        processes=processes,
        rate=rate,
        seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
    )
    return Exit.OK


def measure(
    output: Path, *, seconds: float, nodes: tuple[int, ...] = _NODES, processes: int = 1, rate: float = 10.0
) -> None:
    """Run, write and show."""
    from worker.bench import fleet, fleet_report, report

    report.check_writable(output)
    found = fleet.run(fleet.Options(nodes, processes, rate, seconds), say)
    write(found, output, fleet_report.FLEET_JSON, fleet_report.FLEET_PNG, fleet_report.draw)
    show(
        fleet_report.title(found),
        fleet_report.HEADINGS,
        fleet_report.rows(found),
        fleet_report.remarks(found),
        [fleet_report.README_HEADINGS, fleet_report.readme_line(found)],
    )
