"""For every test: a marker named after its folder, and an environment without the settings of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

_ROOT = Path(__file__).parent

# Examples have no deadline: on a busy machine one that takes long says nothing about the code.
hypothesis_settings.register_profile("maskmill", deadline=None)
hypothesis_settings.load_profile("maskmill")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(_ROOT).parts[0]
        item.add_marker(folder)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove MASKMILL_*, AWS_*, PRODUCER_*, WORKER_* and proxy variables, and leave the folder with `.env`.

    No test fetches a network unless it says so: the default would. Services that the developer runs on this machine are
    not found.
    """
    from worker.contract import local_services

    find, own = local_services.find_running, local_services.folder()
    monkeypatch.setattr(local_services, "find_running", lambda state: None if state == own else find(state))
    for name in os.environ:
        if name.startswith(("MASKMILL_", "AWS_", "PRODUCER_", "WORKER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASKMILL_MODEL__SOURCE", "builtin:starter")  # by default, a first run fetches a network
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The embedded Redis and S3, one pair for the whole run. The dependencies include them, so no test is skipped."""
    from worker.standalone.services import Standalone

    with Standalone(tmp_path_factory.mktemp("services")) as services:
        yield services
