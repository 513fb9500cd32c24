"""`worker.convert.variant_process`: progress, results and errors of the build process, and its end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from worker.contract.errors import BundleError, BundleNotFound
from worker.convert import variant_process
from worker.convert.variant_process import build_in_process

HEAD = """
import json, os, signal, sys, time
task = json.load(sys.stdin)
def send(**message):
    print(json.dumps(message), flush=True)
"""


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """Replace the module that builds by a script."""

    def replace(body: str) -> None:
        (tmp_path / "stand_in_builder.py").write_text(HEAD + body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(variant_process, "MODULE", "stand_in_builder")

    return replace


def ignore(what: str, done: int, total: int) -> None:
    pass


def test_progress_and_result_are_passed_on(builder):
    builder('send(progress=["half", 1, 2]); send(result={"size": task["size"]})')
    reports = []

    got = build_in_process({"size": 64}, "64 fp32", lambda *report: reports.append(report))

    assert got == {"size": 64}
    assert reports == [("half", 1, 2)]


@pytest.mark.parametrize(("name", "kind"), [("BundleNotFound", BundleNotFound), ("Unheard", BundleError)])
def test_an_error_keeps_its_class_and_names_the_variant(builder, name, kind):
    builder(f'send(error=["{name}", "no such thing"]); sys.exit(1)')

    with pytest.raises(kind, match="64 fp32: no such thing"):
        build_in_process({}, "64 fp32", ignore)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "64 fp32: the system killed the build process, most likely for lack of memory",
        ),
        ("raise ValueError('odd')", r"64 fp32: .* died \(exit code 1\): ValueError: odd"),
        ("os.kill(os.getpid(), signal.SIGABRT)", r"64 fp32: .* died \(SIGABRT\): no error message"),
    ],
)
def test_the_error_says_how_the_process_died(builder, body, words):
    builder(body)

    with pytest.raises(BundleError, match=words):
        build_in_process({}, "64 fp32", ignore)


def test_a_process_that_cannot_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(variant_process, "MODULE", "no_such_module")

    with pytest.raises(BundleError, match="No module named no_such_module"):
        build_in_process({"filler": "x" * 1_000_000}, "64 fp32", ignore)


def test_an_interruption_ends_the_process(builder):
    builder("send(progress=[str(os.getpid()), 0, 0]); time.sleep(60)")
    pids = []

    def interrupt(what: str, done: int, total: int) -> None:
        pids.append(int(what))
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_in_process({}, "64 fp32", interrupt)

    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert Path(f"/proc/{pids[0]}").exists() is False
