"""`worker bench all`: every benchmark in sequence, into one folder."""

from __future__ import annotations

import time
from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.errors import MaskmillError

BENCHMARKS = {
    "images": ("--quick",),
    "model": ("--quick",),
    "pipeline": ("--quick",),
    "scale": ("--quick",),
    "fleet": ("--quick",),
    "neighbour": ("--quick",),
    "submit": ("--keys", "50000"),
}
"""Sub-commands of `worker bench` in the order in which they run, with options for a quick run; all take --output."""

EPILOG = """\b
Examples:
  worker bench all --quick --output bench        under ten minutes on two cores
"""


@click.command("all", epilog=EPILOG)
@click.option("--quick", is_flag=True, help="Short runs: rough figures, to see that everything works.")
@OUTPUT
@click.pass_context
def all_command(context: click.Context, *, quick: bool, output: Path) -> Exit:
    """Run every benchmark; if one cannot run here, report it and run the others."""
    group = context.parent.command if context.parent else None
    if not isinstance(group, click.Group):
        raise click.UsageError("`all` is a sub-command of `worker bench`")
    failed = []
    for name, short in BENCHMARKS.items():
        began = time.monotonic()
        console.out.print(f"[bold]worker bench {name}[/]")
        arguments = ["--output", str(output), *(short if quick else ())]
        command = group.commands[name]
        try:
            with command.make_context(name, arguments, parent=context.parent) as inner:
                command.invoke(inner)
        except MaskmillError as error:
            failed.append(name)
            console.err.print(f"worker bench {name}: {error}", markup=False, soft_wrap=True)
        print_progress(f"{name}: {time.monotonic() - began:.0f} s")
    if failed:
        console.err.print(f"not measured: {', '.join(failed)}", markup=False)
        return Exit.SETUP
    return Exit.OK
