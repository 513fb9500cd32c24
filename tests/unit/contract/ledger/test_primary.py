"""Which server counts as the primary, and what happens to connections to others. The Sentinels are fakes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import redis
from pydantic import SecretStr

from worker.contract.ledger import primary
from worker.contract.ledger.primary import NoPrimary, NoSentinel, Primary, UnknownPrimary
from worker.contract.settings import RedisSettings

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


class FakeSentinel:
    """Answers `SENTINEL MASTER`, or raises the answer."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def sentinel_master(self, name: str) -> dict[str, object]:
        if isinstance(self.answer, Exception):
            raise self.answer
        address, epoch, up = self.answer
        flags = {"is_master": True, "is_sdown": not up, "is_odown": False}
        return {"ip": address[0], "port": address[1], "config-epoch": epoch, **flags}


def sentinels(*answers: object) -> primary._Sentinels:
    settings = RedisSettings(url="sentinel://one,two,three/mymaster")
    behind = settings.sentinels()
    assert behind is not None
    made = primary._Sentinels(settings, behind)
    made._clients = [FakeSentinel(answer) for answer in answers]
    return made


Connect = Callable[[tuple[str, int]], tuple[SimpleNamespace, socket.socket]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections to an address: our side, and the socket of the other side."""
    with ExitStack() as stack:

        def connect(address: tuple[str, int]) -> tuple[SimpleNamespace, socket.socket]:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            return SimpleNamespace(_sock=ours, host=address[0], port=address[1]), theirs

        yield connect


def is_cut(end: socket.socket) -> bool:
    end.setblocking(False)
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_sentinel_that_is_cut_off_does_not_lead_back_to_the_old_primary():
    found = sentinels((NEW, 2, True), (OLD, 1, True))
    assert found.discover_master("mymaster") == NEW
    found._clients = [FakeSentinel((OLD, 1, True)), FakeSentinel((NEW, 2, True))]

    assert found.discover_master("mymaster") == NEW


def test_a_primary_that_is_down_is_not_named():
    with pytest.raises(NoPrimary):
        sentinels((OLD, 1, False), redis.ConnectionError("gone")).discover_master("mymaster")


def test_it_is_said_whether_sentinels_are_silent_or_know_no_such_primary():
    with pytest.raises(NoSentinel, match="none of the 2 Sentinels answers: gone"):
        sentinels(*[redis.ConnectionError("gone")] * 2).discover_master("mymaster")
    with pytest.raises(UnknownPrimary):
        sentinels(redis.ResponseError("ERR No such master with that name")).discover_master("mymaster")


def test_connections_to_another_server_are_cut(connect):
    stale, at_stale = connect(OLD)
    fresh, at_fresh = connect(NEW)

    sentinels((OLD, 1, True), (NEW, 2, True), redis.ConnectionError("gone"))._cut_others([stale, fresh])

    assert is_cut(at_stale) and not is_cut(at_fresh)


def test_one_sentinel_with_old_knowledge_cuts_nothing(connect):
    found = sentinels((NEW, 2, True), (NEW, 2, True), (NEW, 2, True))
    fresh, at_fresh = connect(NEW)
    found._cut_others([fresh])
    found._clients = [FakeSentinel((OLD, 1, True)), *[FakeSentinel(redis.ConnectionError("gone"))] * 2]

    found._cut_others([fresh])

    assert not is_cut(at_fresh)


def test_sentinels_that_were_set_up_again_are_believed():
    """Their count of failovers starts again."""
    found = sentinels((OLD, 7, True), (OLD, 7, True), (OLD, 7, True))
    assert found.discover_master("mymaster") == OLD
    found._clients = [FakeSentinel((NEW, 0, True)) for _ in range(3)]
    with pytest.raises(NoPrimary):
        found.discover_master("mymaster")

    found._cut_others([])

    assert found.discover_master("mymaster") == NEW


def test_celery_can_print_its_options_without_a_secret():
    settings = RedisSettings(
        url="sentinel://one/mymaster", password=SecretStr("hunter2"), sentinel_password=SecretStr("hunter3")
    )

    assert repr(Primary(settings)) == "Primary(sentinel://one/mymaster)"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", primary.Connection),
        ("rediss://h", primary.TlsConnection),
        ("sentinel://h/m", primary.SentinelConnection),
        ("sentinels://h/m", primary.SentinelTlsConnection),
    ],
)
def test_tls_is_used_as_the_url_says(url, kind):
    settings = RedisSettings(url=url)

    assert Primary(settings).pool_of_settings().connection_class is kind
    if settings.sentinels() is not None:
        client = primary._client(settings, "h", 1)
        assert issubclass(client.connection_pool.connection_class, redis.SSLConnection) == url.startswith("sentinels")
