"""Options and their environment variables: a misspelt variable is refused, one of another program is not."""

from __future__ import annotations

import click
import pytest

from producer.cli import cli as producer
from worker.cli import cli as worker
from worker.contract import console
from worker.umbrella.commands import cli as maskmill


def error_of(command: click.Command, *args: str) -> str:
    with pytest.raises(click.ClickException) as caught:
        command.main([*args], standalone_mode=False)
    return caught.value.format_message()


@pytest.mark.parametrize(
    ("command", "args", "variable", "meant"),
    [
        (producer, ("submit", "a", "b"), "PRODUCER_SUBMIT_FORMT", "PRODUCER_SUBMIT_FORMAT"),
        (producer, ("list",), "PRODUCER_LIST_LIMITS", "PRODUCER_LIST_LIMIT"),
        (producer, ("list",), "PRODUCER_LIST_QQQQQQQQQQQQQQQQQQQQ", ""),
        (producer, ("list",), "PRODUCER_SUBMT_FORMAT", "PRODUCER_SUBMIT_FORMAT"),
        (worker, ("plan",), "WORKER_PLAN_JSN", "WORKER_PLAN_JSON"),
        (maskmill, ("list",), "PRODUCER_LIST_LIMITS", "PRODUCER_LIST_LIMIT"),
        (maskmill, ("worker", "plan"), "WORKER_PLAN_JSN", "WORKER_PLAN_JSON"),
        (worker, ("model", "list"), "WORKER_MODEL_LIST_KNWN", "WORKER_MODEL_LIST_KNOWN"),
        (worker, ("kernels", "show"), "WORKER_KERNELS_SHOW_AS_JSN", "WORKER_KERNELS_SHOW_AS_JSON"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(monkeypatch, command, args, variable, meant):
    monkeypatch.setenv(variable, "1")

    message = error_of(command, *args)

    assert f"{variable} sets no option" in message
    assert (f"did you mean {meant}?" in message) if meant else ("did you mean" not in message)


def test_variables_of_other_programs_and_of_other_commands_are_left_alone(monkeypatch):
    for name in (
        "PRODUCER_TOPIC",
        "PRODUCER_STATE_STORE",
        "PRODUCER_HOME",
        "PRODUCER_SUBMIT_FORMT",
        "WORKER_CONNECTIONS",
    ):
        monkeypatch.setenv(name, "1")

    producer.main(["completion", "bash"], standalone_mode=False)
    worker.main(["completion", "bash"], standalone_mode=False)


def test_the_help_that_names_the_variables_can_still_be_read(monkeypatch, capsys):
    monkeypatch.setenv("PRODUCER_SUBMIT_FORMT", "png")

    producer.main(["submit", "--help"], standalone_mode=False)

    assert "PRODUCER_SUBMIT_FORMAT" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_number_of_an_option_is_finite(text):
    with pytest.raises(click.UsageError, match=r"finite number|not in the range"):
        console.FiniteRange(min=0).convert(text, None, None)
