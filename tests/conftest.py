"""What every test gets: a marker by folder, and an environment without settings of the machine's owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(_ROOT).parts[0]
        item.add_marker(folder)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No MASKMILL_*, AWS_* or proxy variable and no `.env` of the outside reaches a test; none downloads a network."""
    for name in os.environ:
        if name.startswith(("MASKMILL_", "AWS_", "PRODUCER_", "WORKER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASKMILL_MODEL__SOURCE", "builtin:starter")  # by default, a first run fetches a network
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The embedded Redis and S3, one pair for the whole run. They come with the dependencies: never skipped."""
    from worker.standalone.services import Standalone

    with Standalone(tmp_path_factory.mktemp("services")) as services:
        yield services
