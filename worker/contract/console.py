"""Shared by the commands `producer` and `worker`: exit codes, error output, and `config` and `completion`."""

from __future__ import annotations

import difflib
import importlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from io import TextIOWrapper
from typing import IO, Any, NoReturn

import click
from click.shell_completion import get_completion_class
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.contract import extras, settings
from worker.contract.errors import MaskmillError, SetupError
from worker.contract.printable import printable
from worker.contract.spelling import did_you_mean


class Exit(IntEnum):
    """Exit codes of `producer` and `worker`. 2 is not used: shells and other tools give it too many meanings."""

    OK = 0
    SETUP = 1
    SOME_FAILED = 3
    THRESHOLD = 4
    CANCELLED = 5
    TIMED_OUT = 6
    INTERRUPTED = 128 + signal.SIGINT


class FiniteRange(click.FloatRange):
    """A range of numbers without `nan`, which is in every range of click, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; a text that is no finite number in the range is a usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


_SIMILAR = 0.8
"""Similarity (`difflib`) from which a word in the name of a variable counts as a misspelt command. STATE has 0.73 of
STATUS."""

_UNLIMITED = 100_000
"""Columns, more than any table has."""


class SafeConsole(Console):
    """A console that shows unsafe characters of any text as escapes; see `worker.contract.printable`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return styled text. Rich calls this for every string: of `print`, and of the cells of a table."""
        return super().render_str(printable(text, keep="\n\t"), **options)


out = SafeConsole(highlight=False)
err = SafeConsole(stderr=True, highlight=False)


def run(command: click.Command) -> NoReturn:
    """Run a command and exit. An expected error prints one message on standard error and sets a documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal or pipe that is not UTF-8 shows what it lacks as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command.main(standalone_mode=False)
    except click.exceptions.Abort:
        err.print("interrupted")
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.SETUP)
    except MaskmillError as error:
        _exit_with(error)
    except ModuleNotFoundError as error:
        if not (reason := extras.explain(error)):
            raise
        _exit_with(SetupError(reason))
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _exit_with(error: MaskmillError) -> NoReturn:
    err.print(f"[bold red]error[/] ({error.code}): ", end="")
    err.print(str(error), markup=False, soft_wrap=True)
    sys.exit(Exit.SETUP)


EntryPoint = tuple[str, str] | tuple[str, str, str]
"""Module and attribute of a command, and the extra without which it cannot run."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called: `--help` and `status` do not load boto3 and Celery."""

    def __init__(self, *args: Any, entry_points: Mapping[str, EntryPoint], **kwargs: Any) -> None:
        """Create the group. `entry_points` maps the name of each command to where it is and what it needs."""
        super().__init__(*args, **kwargs)
        self._entry_points = entry_points

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order given."""
        return list(self._entry_points)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name. If its extra is missing, return one that only says so."""
        if cmd_name not in self._entry_points:
            return None
        module, name, *needed = self._entry_points[cmd_name]
        if needed and (reason := extras.missing(needed[0], f"`{ctx.command_path} {cmd_name}`")):
            return unavailable_command(cmd_name, reason)
        command: click.Command = getattr(importlib.import_module(module), name)
        show_variables(command, f"{ctx.auto_envvar_prefix}_{cmd_name.upper()}" if ctx.auto_envvar_prefix else None)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command as click does, and suggest the closest name for a misspelt one."""
        if args[0] not in self._entry_points and (close := difflib.get_close_matches(args[0], self._entry_points, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        name, command, rest = super().resolve_command(ctx, args)
        prefix = self.variables_prefix(ctx, name) if name else None
        asks_for_help = not {"-h", "--help"}.isdisjoint(rest)
        if name and command and prefix and not ctx.resilient_parsing and not asks_for_help:
            self._refuse_unknown_variables(ctx, prefix, name, command)
        return name, command, rest

    def variables_prefix(self, ctx: click.Context, name: str) -> str | None:
        """Return the first word of the variables that the options of a command read; None if it reads none."""
        return ctx.auto_envvar_prefix

    def _refuse_unknown_variables(self, ctx: click.Context, prefix: str, name: str, command: click.Command) -> None:
        """Fail if an environment variable looks like an option of the command, or of a misspelt one, and is none.

        Variables of other programs may begin with the same word: only those that continue with the name of a command,
        or with a similar name, are refused.
        """
        if command.context_settings.get("ignore_unknown_options"):
            return  # it cannot run, and says why
        own = f"{prefix}_{name.upper()}_"
        known = set(_variables(command, own.rstrip("_")))
        commands = [word.upper() for word in self._entry_points]
        for variable in sorted(name for name in os.environ if name.startswith(f"{prefix}_")):
            if variable.startswith(own):
                # The commands of a lazy group check their own variables.
                hint = did_you_mean(variable, known)
                wrong = variable not in known and not isinstance(command, LazyGroup)
            else:
                word, _, option = variable.removeprefix(f"{prefix}_").partition("_")
                close = difflib.get_close_matches(word, commands, n=1, cutoff=_SIMILAR)
                hint = f"; did you mean {prefix}_{close[0]}_{option}?" if close else ""
                wrong = bool(option and close) and word not in commands
            if wrong:
                ctx.fail(f"{variable} sets no option{hint} (`{ctx.command_path} {name} --help` names the variables)")


def _variables(command: click.Command, prefix: str) -> Iterator[str]:
    """Yield the environment variables that the options of a command and of its own commands read."""
    for option in command.params:
        if isinstance(option, click.Option):
            given = option.envvar if isinstance(option.envvar, str) else f"{prefix}_{option.name}".upper()
            yield given
    if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
        for name, one in command.commands.items():
            yield from _variables(one, f"{prefix}_{name}".upper().replace("-", "_"))


def unavailable_command(name: str, reason: str) -> click.Command:
    """Return a command that takes any arguments and fails with `reason`, which its help shows too."""

    def fail(arguments: tuple[str, ...]) -> NoReturn:
        raise SetupError(reason)

    arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        callback=fail,
        params=[arguments],
        help=f"{reason[0].upper()}{reason[1:]}",
        short_help=f"(needs {reason.partition(' needs ')[2]})",
        context_settings={"ignore_unknown_options": True},
    )


def show_variables(command: click.Command, prefix: str | None) -> None:
    """Give every option an environment variable, such as PRODUCER_STATUS_JSON for `--json`, and show it in the help."""
    for option in command.params:
        if isinstance(option, click.Option) and prefix and not option.is_eager:
            flag = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            option.envvar, option.show_envvar = f"{prefix}_{flag}", True


def no_display() -> AbstractContextManager[None]:
    """Return a context manager that takes the place of a live display and shows nothing."""
    return nullcontext()


def print_table(table: Table) -> None:
    """Print a table on standard output: as wide as the terminal, or as wide as its content where there is none."""
    if out.is_terminal:
        out.print(table)
    else:
        SafeConsole(width=_UNLIMITED, highlight=False).print(table)


def print_json(value: object) -> None:
    """Print a value as one line of JSON on standard output; with escapes where its encoding lacks a character."""
    click.echo(json_for(sys.stdout, json.dumps(value, ensure_ascii=False)))


def json_for(stream: IO[str], text: str) -> str:
    """Return JSON with all non-ASCII characters escaped if the encoding of a stream lacks one of them."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text))
    return text


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
    """Print the script that makes SHELL complete commands, options and values with the tab key."""
    root = ctx.find_root()
    name = str(root.info_name)
    script = get_completion_class(shell)
    if script is None:
        raise AssertionError(f"click has no completion class for {shell}")
    click.echo(script(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())


@click.command("config", epilog="\b\nExample:\n  producer config --json | grep REDIS")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per setting.")
def config_command(*, as_json: bool) -> None:
    """Print every setting with its effective value and its source. Secrets are masked."""
    config = settings.load()
    rows = list(settings.explain(config))
    longest = f"{config.s3.longest_request_seconds:g}"
    if as_json:
        for row in rows:
            print_json({"setting": row.variable, "value": row.value, "origin": row.origin})
        print_json({"setting": "longest S3 request, seconds", "value": longest, "origin": "computed"})
        return
    table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(row.variable, row.value or "[dim]-[/]", row.origin)
    table.add_row("longest S3 request, seconds", longest, "computed")
    SafeConsole(width=max(out.width, 120), highlight=False).print(table)
