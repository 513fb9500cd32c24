from __future__ import annotations

import socket

import pytest

from worker import steward
from worker.contract import settings
from worker.contract.errors import SetupError


def test_no_role_is_running_when_the_port_of_the_metrics_is_taken(monkeypatch):
    """Connections are closed on the way out, and a thread in the middle of a call would end with a traceback."""
    monkeypatch.setattr(steward.signal, "signal", lambda *_: None)
    monkeypatch.setattr(steward.Role, "start", lambda role: pytest.fail("a role was started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MASKMILL_METRICS__PORT", str(taken.getsockname()[1]))

        with pytest.raises(SetupError, match="MASKMILL_METRICS__PORT"):
            steward.run(settings.load())
