"""`worker bench all`: every benchmark, one after the other, into one folder."""

from __future__ import annotations

import time
from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, say
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.errors import MaskmillError

BENCHMARKS = ("images", "model", "pipeline", "scale", "fleet")
"""Sub-commands of `worker bench`, in the order in which they run. Every one takes --quick and --output."""

EPILOG = """\b
Examples:
  worker bench all --quick --output bench        under ten minutes on two cores
"""


@click.command("all", epilog=EPILOG)
@click.option("--quick", is_flag=True, help="Short runs: does it work, roughly how fast.")
@OUTPUT
@click.pass_context
def all_command(context: click.Context, *, quick: bool, output: Path) -> Exit:
    """Run every benchmark; one that cannot run here is named, and the others go on."""
    group = context.parent.command if context.parent else None
    if not isinstance(group, click.Group):
        raise click.UsageError("`all` is a sub-command of `worker bench`")
    failed = []
    for name in BENCHMARKS:
        began = time.monotonic()
        console.out.print(f"[bold]worker bench {name}[/]")
        arguments = ["--output", str(output), *(["--quick"] if quick else [])]
        command = group.commands[name]
        try:
            with command.make_context(name, arguments, parent=context.parent) as inner:
                command.invoke(inner)
        except MaskmillError as error:
            failed.append(name)
            console.err.print(f"worker bench {name}: {error}", markup=False, soft_wrap=True)
        say(f"{name}: {time.monotonic() - began:.0f} s")
    if failed:
        console.err.print(f"not measured: {', '.join(failed)}", markup=False)
        return Exit.SETUP
    return Exit.OK
