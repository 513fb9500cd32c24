"""A connection to the ledger leaves nothing open, on a real server."""

from __future__ import annotations

import gc

from worker.contract.ledger.connection import RedisConnection


def test_a_closed_connection_is_closed_at_the_server_too(installation, ledger):
    def count() -> int:
        return sum(entry["name"] == "closed-soon" for entry in ledger.connection.client.client_list())

    gc.disable()  # the worker connects again after each loss: it must not wait for the collector
    try:
        connection = RedisConnection(installation.settings.redis, retries=0, client_name="closed-soon")
        connection.call(connection.client.ping)
        assert count() == 1

        connection.close()

        assert count() == 0
    finally:
        gc.enable()
