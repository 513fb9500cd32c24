"""The `producer` command. These modules handle options and output; the package above does the work.

Each command is imported when it is called.
"""

from __future__ import annotations

from typing import NoReturn

import click

from worker.contract import console

_COMMANDS = {
    "submit": ("producer.cli.submit", "submit_command"),
    "status": ("producer.cli.jobs", "status_command"),
    "watch": ("producer.cli.jobs", "watch_command"),
    "list": ("producer.cli.jobs", "list_command"),
    "cancel": ("producer.cli.control", "cancel_command"),
    "pause": ("producer.cli.control", "pause_command"),
    "resume": ("producer.cli.control", "resume_command"),
    "retry": ("producer.cli.control", "retry_command"),
    "recover": ("producer.cli.control", "recover_command"),
    "forget": ("producer.cli.control", "forget_command"),
    "results": ("producer.cli.results", "results_command"),
    "report": ("producer.cli.report", "report_command"),
    "download": ("producer.cli.download", "download_command"),
    "config": ("worker.contract.console", "config_command"),
    "completion": ("worker.contract.console", "completion_command"),
}

EPILOG = """\b
Exit codes: 0 success; 1 usage or set-up error; 3 some images failed;
4 job stopped by its error threshold; 5 job cancelled; 6 timed out while waiting; 130 interrupted.

\b
Every option can also be set by an environment variable; the help of each command names them.
Separate the values of an option that can be repeated by spaces.

\b
Examples:
  producer submit s3://shop/photos/ s3://shop/masks/ --wait
  producer submit ./photos s3://shop/masks/ --output mask,cutout
  producer status 20260131-120000-a1b2c3 --json
  producer results 20260131-120000-a1b2c3 --outcome failed,dead --format csv
  producer report 20260131-120000-a1b2c3
  producer download 20260131-120000-a1b2c3 ./masks
"""


@click.group(
    cls=console.LazyGroup,
    entry_points=_COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PRODUCER"},
)
@click.version_option(package_name="maskmill", prog_name="producer")
def cli() -> None:
    """Cut the subject out of photographs in bulk: submit images, watch jobs, fetch results."""


def main() -> NoReturn:
    """Run the console script."""
    console.run(cli)
