"""What the two commands share: exit codes, how errors are shown, and the `config` command."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from worker.contract import settings
from worker.contract.errors import MaskmillError


class Exit(IntEnum):
    """Exit codes of `producer` and `worker`. 2 is left out: shells and other tools use it for too many things."""

    OK = 0
    SETUP = 1
    SOME_FAILED = 3
    THRESHOLD = 4
    CANCELLED = 5
    TIMED_OUT = 6
    INTERRUPTED = 128 + signal.SIGINT


out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def run(command: click.Command) -> NoReturn:
    """Run a command line: every foreseen error is one message on standard error and a documented exit code."""
    try:
        code = command.main(standalone_mode=False)
    except click.exceptions.Abort:
        err.print("interrupted")
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.SETUP)
    except MaskmillError as error:
        err.print(f"[bold red]error[/] ({error.code}): ", end="")
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(Exit.SETUP)
    sys.exit(code if isinstance(code, int) else Exit.OK)


class LazyGroup(click.Group):
    """Commands that are imported when they are called: `--help` and `status` need not wait for boto3 and Celery."""

    def __init__(self, *args: Any, places: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """`places`: name of each command -> module and attribute."""
        super().__init__(*args, **kwargs)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order given."""
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in self._places:
            return None
        module, name = self._places[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def nothing() -> AbstractContextManager[None]:
    """Stands where a live display would be, when nobody is looking."""
    return nullcontext()


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per setting.")
def config_command(*, as_json: bool) -> None:
    """Print every setting with its effective value and where it came from; secrets are hidden."""
    rows = list(settings.explain(settings.load()))
    if as_json:
        for row in rows:
            print_json({"setting": row.variable, "value": row.value, "origin": row.origin})
        return
    table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(row.variable, row.value or "[dim]-[/]", row.origin)
    Console(width=max(out.width, 120), highlight=False).print(table)
