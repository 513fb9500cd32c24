"""`worker standalone`: run embedded Redis and S3 servers and workers on this machine."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import click

from worker.cli.network import prepare
from worker.contract import console, extras, settings
from worker.contract.console import Exit
from worker.standalone.stack import Stack

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Folder for data, credentials and logs; kept between runs.",
)


def model_settings(echo: Callable[..., None]) -> dict[str, str]:
    """Prepare the network that workers of this machine will run, and return the setting that names it.

    Args:
        echo: prints a line for people.

    Raises:
        SettingsError: a setting is wrong.
        BundleError: a network that the settings name cannot be prepared.
    """
    config, network = prepare(settings.load(), lambda what: echo(what, markup=False, soft_wrap=True))
    if network.why:
        echo(f"network: {network.why}", markup=False, soft_wrap=True)
    return {"MASKMILL_MODEL__SOURCE": config.model.source}


_EXAMPLES = """\b
Examples:
  worker standalone
  worker standalone --state /srv/maskmill --no-workers
  worker standalone -- producer submit ./photos s3://maskmill/masks/ --wait
"""


@click.command("standalone", epilog=_EXAMPLES, context_settings={"ignore_unknown_options": True})
@STATE
@click.option("--workers/--no-workers", default=True, show_default=True, help="Also run workers on this machine.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def standalone_command(*, state: Path, workers: bool, command: tuple[str, ...]) -> int:
    """Run embedded Redis and S3 servers and workers on this machine.

    Without COMMAND, prints the settings to export and runs until Ctrl-C. With COMMAND, runs it with these settings,
    then stops everything and exits with the exit code of COMMAND.
    """
    if workers:
        extras.require("worker", "`worker standalone` without --no-workers")
    model = model_settings(console.err.print) if workers else {}
    with Stack(state, workers=workers, settings=model) as stack:
        if command:
            return stack.run(command)
        console.out.print("[bold]Redis and S3 are running.[/] In another terminal:\n")
        for name, value in stack.services.environment().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        console.out.print("\nproducer submit ./photos s3://maskmill/masks/ --wait\n", markup=False)
        console.out.print(
            f"logs: {stack.worker_log.parent}; press Ctrl-C to stop everything", markup=False, soft_wrap=True
        )
        try:
            while True:
                stack.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.out.print("stopping")
    return Exit.OK
