"""`worker standalone`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from worker.contract import console
from worker.contract.console import Exit
from worker.standalone.stack import Stack

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Folder for data, credentials and logs; kept for the next time.",
)


_EXAMPLES = """\b
Examples:
  worker standalone
  worker standalone --state /srv/maskmill --no-workers
  worker standalone -- producer submit ./photos s3://maskmill/masks/ --wait
"""


@click.command("standalone", epilog=_EXAMPLES, context_settings={"ignore_unknown_options": True})
@STATE
@click.option("--workers/--no-workers", default=True, show_default=True, help="Run this machine's workers as well.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def standalone_command(*, state: Path, workers: bool, command: tuple[str, ...]) -> int:
    """Run an embedded Redis and S3 server on this machine, and workers on its cores.

    Without COMMAND it prints the settings to export and runs until Ctrl-C. With COMMAND it runs that with those
    settings, then stops everything and exits with its status.
    """
    with Stack(state, workers=workers) as stack:
        if command:
            return stack.run(command)
        console.out.print("[bold]Redis and S3 are up.[/] In another terminal:\n")
        for name, value in stack.services.environment().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        console.out.print("\nproducer submit ./photos s3://maskmill/masks/ --wait\n", markup=False)
        console.out.print(
            f"logs are in {stack.worker_log.parent}; Ctrl-C stops everything", markup=False, soft_wrap=True
        )
        try:
            while True:
                stack.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.out.print("stopping")
    return Exit.OK
