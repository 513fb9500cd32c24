"""`worker bench fleet`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress, publish
from worker.contract.console import Exit, FiniteRange

_NODES = (1, 10, 100, 1000)
_SECONDS, _QUICK_SECONDS = 30.0, 8.0

EPILOG = """\b
Examples:
  worker bench fleet --quick --output bench
  worker bench fleet --nodes 10,100,1000 --processes 2 --rate 40 --output bench      such as nodes of 64 cores
"""


def _nodes(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{text!r}: give numbers of nodes separated by commas, such as 1,10,100")
    return tuple(sorted({int(word) for word in words}))


@click.command("fleet", epilog=EPILOG)
@click.option(
    "--nodes", default=",".join(map(str, _NODES)), show_default=True, callback=_nodes, help="Numbers of nodes."
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes per node."
)
@click.option("--rate", type=FiniteRange(min=0.01), default=10.0, show_default=True, help="Images per second per node.")
@click.option("--seconds", type=FiniteRange(min=2), help=f"Duration for each number of nodes. [{_SECONDS:g}]")
@click.option("--quick", is_flag=True, help=f"{_QUICK_SECONDS:g} s for each number of nodes.")
@OUTPUT
def fleet_command(
    *, nodes: tuple[int, ...], processes: int, rate: float, seconds: float | None, quick: bool, output: Path
) -> int:
    """Measure how many nodes one Redis and one steward carry.

    Simulates as many workers as this machine carries. They speak the real protocol to an embedded Redis, without
    images. Larger fleets are predicted from the cost of an image for Redis and steward.
    """
    from worker.bench import fleet, report

    report.check_writable(output)
    duration = seconds or (_QUICK_SECONDS if quick else _SECONDS)
    publish(fleet.run(fleet.FleetOptions(nodes, processes, rate, duration), print_progress), output)
    return Exit.OK
