"""A lock in Redis for each role of the fleet, held by one process at a time until it stops renewing it."""

from __future__ import annotations

import secrets
from typing import Any

from worker.contract import redis_keys
from worker.contract.ledger.connection import RedisConnection

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Leadership:
    """One candidate for the lock of one role."""

    def __init__(self, connection: RedisConnection, role: str, seconds: float) -> None:
        """Send nothing yet.

        Args:
            connection: to Redis.
            role: name of the role.
            seconds: lifetime of the lock after the last renewal; renew at least three times as often.
        """
        self._connection, self._key = connection, redis_keys.leader(connection.prefix, role)
        self._milliseconds = int(seconds * 1000)
        self._token = secrets.token_hex(8)
        self._renew: Any = connection.client.register_script(_RENEW)
        self._resign: Any = connection.client.register_script(_RESIGN)

    def hold(self) -> bool:
        """Renew the lock, or take it if it is free; return False if another process holds it."""

        def renew_or_take() -> bool:
            if self._renew(keys=[self._key], args=[self._token, self._milliseconds]):
                return True
            return bool(self._connection.client.set(self._key, self._token, nx=True, px=self._milliseconds))

        return bool(self._connection.call(renew_or_take))

    def resign(self) -> None:
        """Release the lock, if this candidate holds it."""
        self._connection.call(lambda: self._resign(keys=[self._key], args=[self._token]))
