"""The group `maskmill`. A command whose extra is missing says so (`worker.contract.extras`)."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import click

from worker.contract import console, extras


class _Command(NamedTuple):
    module: str
    attribute: str
    summary: str
    variables: str = ""
    """Prefix of the environment variables of its options; empty: it has none."""
    extra: str = ""
    """The extra of the package with which it can run; empty: the plain package is enough."""
    reads_jobs: bool = False
    """It reads jobs that are stored on this machine, whether the services run or not."""


def _producer(name: str, summary: str, module: str, *, reads_jobs: bool = False) -> _Command:
    return _Command(f"producer.cli.{module}", f"{name}_command", summary, "PRODUCER", reads_jobs=reads_jobs)


_COMMANDS = {
    "cut": _Command(
        "worker.umbrella.cut", "cut_command", "Cut out the pictures of a folder on this machine.", extra="cut"
    ),
    "submit": _producer("submit", "Submit images to workers.", "submit"),
    "list": _producer("list", "List jobs, newest first.", "jobs", reads_jobs=True),
    "status": _producer("status", "Show the state of a job.", "jobs", reads_jobs=True),
    "watch": _producer("watch", "Follow a job until it ends.", "jobs"),
    "results": _producer("results", "Print the outcome of every image of a job.", "results", reads_jobs=True),
    "report": _producer("report", "Write a report page about a job.", "report", reads_jobs=True),
    "download": _producer("download", "Copy the outputs of a job to a folder.", "download", reads_jobs=True),
    "cancel": _producer("cancel", "Stop a job.", "control"),
    "pause": _producer("pause", "Start no further image of a job.", "control"),
    "resume": _producer("resume", "Continue a paused job.", "control"),
    "retry": _producer("retry", "Run failed images of a job again.", "control"),
    "recover": _producer("recover", "Rebuild a job that Redis has lost.", "control"),
    "forget": _producer("forget", "Remove jobs that have ended, or that cannot be read.", "control"),
    "serve": _Command(
        "worker.cli.standalone",
        "standalone_command",
        "Run services and workers on this machine until Ctrl-C.",
        "WORKER",
        extra="cut",
    ),
    "samples": _Command("worker.umbrella.samples", "samples_command", "Write the sample photographs.", extra="cut"),
    "worker": _Command("worker.cli", "cli", "Run and measure workers on this node: start, plan, tune, check, ..."),
    "model": _Command("worker.cli.model", "model_command", "List, fetch and check networks.", "WORKER", extra="worker"),
    "config": _Command("worker.contract.console", "config_command", "Print every setting and its source.", "WORKER"),
    "completion": _Command(
        "worker.contract.console", "completion_command", "Print the script for completion with the tab key.", "WORKER"
    ),
}

EPILOG = """\b
Examples:
  maskmill cut ./photos ./cutouts
  maskmill serve
  maskmill submit s3://shop/photos/ s3://shop/masks/ --wait
  maskmill worker start
  maskmill list
"""


class Umbrella(console.LazyGroup):
    """A group that imports a command when it is called, and never to list them."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name. If its extra is missing, return one that only says so."""
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if entry.extra and (reason := extras.missing(entry.extra, f"`{ctx.command_path} {cmd_name}`")):
            return console.unavailable_command(cmd_name, reason)
        command: click.Command = copy.copy(getattr(importlib.import_module(entry.module), entry.attribute))
        command.name = cmd_name
        command.params = [copy.copy(param) for param in command.params]
        console.show_variables(command, f"{entry.variables}_{cmd_name.upper()}" if entry.variables else None)
        if entry.variables == "PRODUCER" and command.callback is not None:
            command.callback = _reaching(command.callback, start=entry.reads_jobs)
        return command

    def variables_prefix(self, ctx: click.Context, name: str) -> str | None:
        """Return the first word of the variables that the options of a command read; None if it reads none."""
        return _COMMANDS[name].variables or None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(
    cls=Umbrella,
    entry_points={name: (entry.module, entry.attribute) for name, entry in _COMMANDS.items()},
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="maskmill", prog_name="maskmill")
def cli() -> None:
    """Cut the subject out of photographs in bulk: a folder on this machine, or a fleet of workers."""


def main() -> NoReturn:
    """Run the console script and exit."""
    console.run(cli)


def _reaching(callback: Callable[..., Any], *, start: bool) -> Callable[..., Any]:
    """Return the callback of a command of the producer that finds the services of this machine."""

    def call(*args: Any, **values: Any) -> Any:
        from worker.umbrella.stored import reachable_services

        with reachable_services(start=start):
            return callback(*args, **values)

    return call
