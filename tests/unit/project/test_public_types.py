"""A program of a user is type-checked as the pages show it, with the strictest settings of mypy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import producer
from worker.contract import errors

ROOT = Path(__file__).parents[3]
PROGRAMS = [
    block
    for page in ("README.md", "producer/README.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    if "from producer import" in block
]
GOOD = """
from pathlib import Path

from producer import (
    BrokerUnavailable, Client, Filters, JobPolicy, MaskmillError, Outcome, OutputOptions, SourceSpec, Submitted
)

try:
    with Client() as client:
        policy = JobPolicy(priority="high", max_failed=3)
        filters = Filters(include="*.jpg", min_size="10k", newer_than="7d", sample=500)
        submitted: Submitted = client.submit(["a.jpg", Path("b.jpg")], "s3://b/", policy=policy, filters=filters)
        spec = SourceSpec("s3://b/", manifest_format="csv")
        found: list[Outcome] = list(client.results(submitted.job, kinds="failed"))
        count: int = client.download(submitted.job, "./masks").files
except BrokerUnavailable as error:
    print(error.retryable)
except MaskmillError as error:
    print(error.code)
"""
BAD = {
    'OutputOptions(fromat="webp")': "call-arg",
    'OutputOptions(format="wepb")': "arg-type",
    "JobPolicy(max_fail=3)": "call-arg",
    'Filters(includes="*.jpg")': "call-arg",
    'Client().submit("a", "s3://b/", output=None)': "call-arg",
    "for one in Client().download('j', 'd'): pass": "attr-defined",
    "from producer import Clown": "attr-defined",
}


PYRIGHT = ("basedpyright", "pyright")
"""Programs, the first that is installed is used; the wheel of the former contains all that it needs."""


def mypy(folder: Path, text: str) -> tuple[int, list[str]]:
    (folder / "program.py").write_text(text, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    done = subprocess.run([*command, "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.timeout(300)
def test_programs_of_the_pages_pass_and_typos_do_not(tmp_path):
    assert PROGRAMS
    lines = ["from producer import Client, Filters, JobPolicy, OutputOptions", *BAD]
    for program in (*PROGRAMS, GOOD):
        code, found = mypy(tmp_path, program)
        assert code == 0, "\n".join([program, *found])

    code, found = mypy(tmp_path, "\n".join(lines))

    errors_by_line = {int(line.split(":")[1]): line for line in found if ": error:" in line}
    for number, (line, kind) in enumerate(BAD.items(), start=2):
        assert f"[{kind}]" in errors_by_line.get(number, ""), (line, found)


@pytest.mark.timeout(300)
def test_pyright_agrees(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = next(filter(None, (shutil.which(name, path=path) for name in PYRIGHT)), None)
    if program is None:
        pytest.skip("no pyright: pip install basedpyright")
    lines = ["from producer import Client, Filters, JobPolicy, OutputOptions", *BAD]
    texts = {"good": GOOD, "bad": "\n".join(lines)} | {f"page{number}": text for number, text in enumerate(PROGRAMS)}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")

    done = subprocess.run(
        [program, "--level", "error", "--outputjson", "--pythonpath", sys.executable, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    found = [
        (Path(one["file"]).stem, one["range"]["start"]["line"]) for one in json.loads(done.stdout)["generalDiagnostics"]
    ]
    assert sorted(found) == [("bad", number) for number in range(1, len(BAD) + 1)], done.stdout


def test_every_public_name_and_every_error_that_a_program_can_catch_is_exported():
    namespace: dict[str, object] = {}
    exec("from producer import *", namespace)  # noqa: S102 -- what a program writes

    assert set(producer.__all__) == set(producer._PUBLIC_NAMES) <= set(namespace)
    assert producer.__all__ == sorted(producer.__all__)
    raised = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.MaskmillError)
        and not issubclass(kind, errors.BundleError | errors.ImageError | errors.BadMessage)
    }
    of_workers = {"PlacementError", "StandaloneError", "HubUnavailable"}
    assert raised - of_workers <= set(producer.__all__)
