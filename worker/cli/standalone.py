"""`worker standalone`, also `maskmill serve`: run embedded Redis and S3 servers and workers on this machine."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import click

from worker.cli.network import prepare
from worker.contract import console, extras, local_services, settings
from worker.contract.console import Exit
from worker.contract.settings import ModelSettings, Settings
from worker.standalone.stack import Stack

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=local_services.folder,
    show_default="~/.cache/maskmill/local",
    help="Folder for data, credentials and logs; kept between runs. Commands find services by themselves only in the "
    "default folder.",
)


def prepared_model(echo: Callable[..., None], config: Settings) -> ModelSettings:
    """Prepare the network that workers of this machine will run, and return the settings that choose it.

    Args:
        echo: prints a line for people.
        config: the settings.

    Raises:
        SettingsError: a setting is wrong.
        BundleError: a network that the settings name cannot be prepared.
    """
    config, network = prepare(config, lambda what: echo(what, markup=False, soft_wrap=True))
    if network.why:
        echo(f"network: {network.why}", markup=False, soft_wrap=True)
    return config.model


_EXAMPLES = """\b
Examples:
  maskmill serve
  maskmill serve --state /srv/maskmill --no-workers
  maskmill serve -- producer submit ./photos s3://maskmill/masks/ --wait
"""


@click.command("standalone", epilog=_EXAMPLES, context_settings={"ignore_unknown_options": True})
@STATE
@click.option("--workers/--no-workers", default=True, show_default=True, help="Also run workers on this machine.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def standalone_command(*, state: Path, workers: bool, command: tuple[str, ...]) -> int:
    """Run embedded Redis and S3 servers and workers on this machine; also called `maskmill serve`.

    Without COMMAND, prints the settings to export and runs until Ctrl-C. With COMMAND, runs it with these settings,
    then stops everything and exits with the exit code of COMMAND. Commands of this user find services in the default
    folder without the settings.
    """
    if workers:
        extras.require("worker", "`worker standalone` without --no-workers")
    model = prepared_model(console.err.print, settings.load()) if workers else None
    with Stack(state, workers=workers, model=model) as stack:
        if command:
            return stack.run(command)
        console.out.print("[bold]Redis and S3 are running.[/]")
        if stack.services.state == local_services.folder():
            console.out.print("Commands that you run now find them. For other programs:\n")
        else:
            console.out.print("In another terminal:\n")
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
