"""Wheel, sdist and empty environments, for tests of what users install.

A command that cannot be imported, a dependency that is not declared and a lock file with a gap show only there: the
environment of the other tests has everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from support.environments import ROOT, Built, Environment, build, oldest_of_each

PYTHONS = oldest_of_each()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))  # the first run on a machine downloads every package


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "wheel", "sdist")
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the environment of one test after the other, and for the bytecode that all of them share."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def make_environment(place: Path, tmp_path: Path) -> Iterator[Callable[[Path], Environment]]:
    """Return a function that creates an empty environment; a test may have one, which makes room after it."""
    folder = place / "environment"
    yield lambda python: Environment.new(folder, python, place / "bytecode")
    if folder.exists():
        folder.rename(tmp_path / "environment")


@pytest.fixture(params=PYTHONS)
def environment(request: pytest.FixtureRequest, make_environment: Callable[[Path], Environment]) -> Environment:
    """An empty environment, once for each Python."""
    return make_environment(PYTHONS[request.param])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = Image.new("RGB", (96, 64), (200, 205, 210))
    picture.paste((180, 30, 40), (20, 10, 70, 50))
    picture.save(folder / "shoe.jpg")
    return folder
