"""The `worker` command: one file per sub-command, imported only when it is called, so that `--help` is fast."""

from __future__ import annotations

from typing import NoReturn

import click

from worker.contract import console

_COMMANDS = {
    "start": ("worker.cli.start", "start_command", "worker"),
    "plan": ("worker.cli.plan", "plan_command", "worker"),
    "tune": ("worker.cli.tune", "tune_command", "worker"),
    "check": ("worker.cli.check", "check_command", "worker"),
    "model": ("worker.cli.model", "model_command", "worker"),
    "config": ("worker.contract.console", "config_command"),
    "completion": ("worker.contract.console", "completion_command"),
    "standalone": ("worker.cli.standalone", "standalone_command", "standalone"),
    "bench": ("worker.cli.bench", "bench_command", "worker"),
    "kernels": ("worker.cli.kernels", "kernels_command", "worker"),
}

EPILOG = """\b
Exit codes: 0 success; 1 usage or set-up error; 130 interrupted.

\b
Examples:
  worker check                     test whether this node is ready
  worker plan --json               show cores, streams and the reasons
  worker start                     run one pinned process per core set, until SIGTERM
  worker standalone -- producer list
"""


@click.group(
    cls=console.LazyGroup,
    entry_points=_COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "WORKER"},
)
@click.version_option(package_name="maskmill", prog_name="worker")
def cli() -> None:
    """Run maskmill workers on this node."""


def main() -> NoReturn:
    """Run the console script and exit."""
    console.run(cli)
