"""Check that Redis can fail over, and what a failover may lose: the Sentinels, the replicas, and our rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.contract.errors import AccessDenied, ServiceError, SetupError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.settings import RedisSettings

_FEW_SENTINELS = 3
"""With fewer, the loss of one leaves no majority to agree on a failover."""

_IN_STEP_SECONDS = 10
"""Seconds since the last acknowledgement of a replica up to which it counts as in step, as by default in Redis."""


@dataclass(frozen=True)
class Replication:
    """What `worker check` says about it."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    """Weaknesses that do not prevent a failover now."""


@dataclass(frozen=True)
class Replicas:
    """The replicas of the primary."""

    connected: int
    in_step: int
    """Those that confirmed within the last seconds what they have."""


def replicas(connection: RedisConnection) -> Replicas:
    """Return how many replicas the primary has now.

    Raises:
        ServiceError: as in `RedisConnection.call`.
    """
    return _replicas(connection.call(lambda: connection.client.info("replication")))


def replicas_wanted(settings: RedisSettings) -> int:
    """Return how many replicas must be in step for a failover that loses nothing that was confirmed."""
    return max(settings.wait_replicas, 0 if settings.sentinels() is None else 1)


def check(connection: RedisConnection, settings: RedisSettings) -> Replication:
    """Return facts and weaknesses.

    Raises:
        SetupError: no failover is possible now, or replicas cannot confirm what they shall confirm.
        ServiceError: as in `RedisConnection.call`.
    """
    facts: list[str] = []
    warnings: list[str] = []
    if settings.sentinels() is not None:
        _check_sentinels(connection.primary.states(), connection.primary.quorum(), facts, warnings)
    _check_replicas(connection.call(lambda: connection.client.info("replication")), settings, facts, warnings)
    if settings.wait_replicas:
        _check_wait(connection)
    return Replication(tuple(facts), tuple(warnings))


def _check_sentinels(
    states: Sequence[Mapping[str, Any] | str], quorum: str, facts: list[str], warnings: list[str]
) -> None:
    known = [state for state in states if not isinstance(state, str)]
    silent = [state for state in states if isinstance(state, str)]
    if not known:
        raise SetupError(f"none of the {len(states)} Sentinels answers: {silent[0]}")
    if "NOQUORUM" in quorum:
        raise SetupError(f"the Sentinels cannot agree on a failover: {quorum}")
    primaries = sorted({f"{state['ip']}:{state['port']}" for state in known})
    quorums = sorted({int(state["quorum"]) for state in known})
    others = sorted({int(state["num-other-sentinels"]) for state in known})
    facts.append(
        f"{len(known)} of {len(states)} Sentinels answer and name {' and '.join(primaries)}, quorum "
        f"{' and '.join(map(str, quorums))}, each knows {' or '.join(map(str, others))} others"
    )
    if silent:
        warnings.append(f"{len(silent)} do not answer: {silent[0]}")
    if len(primaries) > 1 or len(quorums) > 1:
        warnings.append("the Sentinels do not agree: a failover is going on, or one of them is cut off")
    if max(others) + 1 < _FEW_SENTINELS:
        warnings.append(f"fewer than {_FEW_SENTINELS} Sentinels: without one of them there is no failover")
    if min(others) + 1 < len(states):
        warnings.append("a Sentinel of MASKMILL_REDIS__URL is unknown to the others")
    if quorum:
        (facts if quorum.startswith("OK") else warnings).append(quorum)


def _replicas(info: Mapping[str, Any]) -> Replicas:
    known = [info[name] for name in (f"slave{number}" for number in range(100)) if name in info]
    in_step = [one for one in known if one["state"] == "online" and int(one.get("lag", 0)) <= _IN_STEP_SECONDS]
    return Replicas(len(known), len(in_step))


def _check_replicas(info: Mapping[str, Any], settings: RedisSettings, facts: list[str], warnings: list[str]) -> None:
    found = _replicas(info)
    facts.append(f"{found.in_step} of {found.connected} connected replicas are in step")
    if not found.in_step and settings.sentinels() is not None:
        raise SetupError("no replica is in step with the primary: a failover is not possible, or would lose data")
    if settings.wait_replicas > found.in_step:
        raise SetupError(
            f"MASKMILL_REDIS__WAIT_REPLICAS is {settings.wait_replicas}, but {found.in_step} replicas are in step"
        )
    if "min_slaves_good_slaves" not in info:
        warnings.append(
            "min-replicas-to-write is 0: a primary that is cut off from its replicas accepts writes that a failover "
            "loses"
        )
    if not settings.wait_replicas:
        warnings.append("MASKMILL_REDIS__WAIT_REPLICAS is 0: a failover may lose a job that was just submitted")


def _check_wait(connection: RedisConnection) -> None:
    try:
        connection.call(lambda: connection.client.wait(0, 1))
    except AccessDenied as error:
        raise SetupError("MASKMILL_REDIS__WAIT_REPLICAS needs the right to WAIT: add +wait to the ACL user") from error
    except ServiceError as error:
        raise SetupError(f"Redis cannot confirm writes (MASKMILL_REDIS__WAIT_REPLICAS): {error}") from error
