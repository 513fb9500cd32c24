"""For every test: a marker named after its folder, and an environment without the settings of the machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import botocore.loaders
import pytest
from hypothesis import settings as hypothesis_settings

_CI = os.environ.get("CI") == "true"
_ROOT = Path(__file__).parent
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)

# Examples have no deadline: on a busy machine one that takes long says nothing about the code.
hypothesis_settings.register_profile("maskmill", deadline=None)
hypothesis_settings.load_profile("maskmill")


def _share_data_of_botocore() -> None:
    """Let all clients of this process share what botocore reads from its files, as clients of one session do.

    It parses megabytes of JSON and lists hundreds of folders for each session, and every test has sessions of its own.
    """
    loader, known = botocore.loaders.Loader, {}
    list_services = loader.list_available_services

    def list_once(self: botocore.loaders.Loader, type_name: str) -> list[str]:
        key = (*self.search_paths, type_name)
        if key not in known:
            known[key] = list_services(self, type_name)
        return known[key]

    loader.list_available_services = list_once
    files = botocore.loaders.JSONFileLoader
    files.load_file = staticmethod(functools.cache(files().load_file))


_share_data_of_botocore()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips in CI: there, everything that tests need is installed."""
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips in CI as a whole."""
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: _Report) -> _Report:
    if _CI and report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"no test may skip in CI. {reason}"
    return report


def pytest_configure() -> None:
    """Fixtures of a session start before `_clean_environment`: their workers must not fetch the default network."""
    os.environ["MASKMILL_MODEL__SOURCE"] = "builtin:starter"


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
