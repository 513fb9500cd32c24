"""A hub on the loopback interface for each test, isolated from the account of the user."""

from __future__ import annotations

from collections.abc import Iterator

import huggingface_hub
import pytest

from support.hub import Hub, RunningHub
from worker.model.sources import hub_client


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[RunningHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    running = RunningHub()
    monkeypatch.setenv("HF_ENDPOINT", running.hub.url)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_client, "PAUSE_SECONDS", 0.01)
    with running:
        yield running


@pytest.fixture
def hub(running: RunningHub) -> Hub:
    return running.hub


@pytest.fixture(autouse=True)
def _connections_are_closed() -> Iterator[None]:
    yield
    huggingface_hub.close_session()
