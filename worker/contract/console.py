"""What the two commands share: exit codes, how errors are shown, and the `config` command."""

from __future__ import annotations

import difflib
import importlib
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class
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
        _show_variables(command, f"{ctx.auto_envvar_prefix}_{cmd_name.upper()}" if ctx.auto_envvar_prefix else None)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but a misspelt command is answered with what was probably meant."""
        if args[0] not in self._places and (close := difflib.get_close_matches(args[0], self._places, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)


def _show_variables(command: click.Command, prefix: str | None) -> None:
    """Every option can be given as a variable named after it (`--json`: PRODUCER_STATUS_JSON), and its help says so."""
    for option in command.params:
        if isinstance(option, click.Option) and prefix and not option.is_eager:
            flag = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            option.envvar, option.show_envvar = f"{prefix}_{flag}", True


def nothing() -> AbstractContextManager[None]:
    """Stands where a live display would be, when nobody is looking."""
    return nullcontext()


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


_COMPLETION = """\b
Examples:
  source <(producer completion bash)          for this shell; add the line to ~/.bashrc for all shells
  producer completion zsh >> ~/.zshrc
  producer completion fish > ~/.config/fish/completions/producer.fish
"""


@click.command("completion", epilog=_COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, *, shell: str) -> None:
    """Print a completion script for SHELL.

    With it, the tab key completes commands, options and their values.
    """
    root = ctx.find_root()
    name = str(root.info_name)
    script = get_completion_class(shell)
    if script is None:
        raise AssertionError("every choice has a class")
    click.echo(script(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())


@click.command("config", epilog="\b\nExample:\n  producer config --json | grep REDIS")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per setting.")
def config_command(*, as_json: bool) -> None:
    """Print every setting with its effective value and its origin. Secrets are hidden."""
    rows = list(settings.explain(settings.load()))
    if as_json:
        for row in rows:
            print_json({"setting": row.variable, "value": row.value, "origin": row.origin})
        return
    table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(row.variable, row.value or "[dim]-[/]", row.origin)
    Console(width=max(out.width, 120), highlight=False).print(table)
