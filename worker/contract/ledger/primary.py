"""Find the primary of Redis and follow it when it moves.

Ledger, queue and result backend take their connection pools from here, so all of them go to the same server:

    redis://, rediss://          one address; a server that turns out to be a replica is left, and connected to again by
                                 name, because a managed service moves the name to the new primary
    sentinel://, sentinels://    the Sentinels name the primary for every new connection; a thread asks them once a
                                 second and cuts the connections to any other server

Without that thread, the clients of a primary that is frozen, or that was replaced while it still answers, would stay
with it for seconds: the former costs time, the latter loses what they write.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakSet

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection

from worker.contract.sentinel_url import SentinelAddress
from worker.contract.settings import RedisSettings

WATCH_SECONDS = 1.0
"""Time between two questions to the Sentinels about the primary."""

_SENTINEL_SECONDS = 1.0
"""Time-out of a question to one Sentinel: its answer does not depend on any other server."""

_ASK_AGAIN_SECONDS = 0.2

_REFUSALS = ("NOREPLICAS", "UNBLOCKED")
"""Answers of a server that has lost its replicas or its role. They pass by themselves or with the next primary."""


class Demoted(RedisConnectionError):
    """Raised when a server answers that it may not, or no longer, serve as the primary. The connection is closed."""


class ConnectionClosed(RedisConnectionError):
    """Raised when a connection to the queue is used after it was closed, or could not be closed properly."""


class NoPrimary(RedisConnectionError):
    """Raised while the Sentinels answer and name no primary that is up: a failover is going on."""


class NoSentinel(RedisConnectionError):
    """Raised when no Sentinel answers."""


class UnknownPrimary(RedisConnectionError):
    """Raised when the Sentinels answer that they monitor no primary of that name."""


class SentinelDenied(AuthenticationError):
    """Raised when a Sentinel refuses the user, the password or the command."""


class _Following:
    """Mixin of connections: treats the answers of a server that is not the primary as a lost connection.

    So redis-py, kombu and Celery, which retry lost connections, do so here as well, and find the new primary.
    """

    def read_response(self, *args: Any, **options: Any) -> Any:
        if options.get("timeout", 0) is None:
            # redis-py waits without limit for what is published. The loop of a worker reads when there is data: it must
            # not wait for ever for the rest of it.
            del options["timeout"]
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except ResponseError as error:
            if not isinstance(error, ReadOnlyError | MasterDownError) and not str(error).startswith(_REFUSALS):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise Demoted(f"the server is no primary with enough replicas now: {error!s:.200}") from error


class Connection(_Following, redis.Connection):
    """A connection to the address of the settings."""


class TlsConnection(_Following, redis.SSLConnection):
    """The same with TLS."""


class _Watched(_Following, SentinelManagedConnection):
    def connect_to(self, address: tuple[str, int]) -> None:
        super().connect_to(address)  # type: ignore[no-untyped-call]
        self.connection_pool.sentinel_manager.watch(self)


class SentinelConnection(_Watched):
    """A connection to the primary that the Sentinels name."""


class SentinelTlsConnection(_Watched, redis.SSLConnection):
    """The same with TLS."""


class Primary:
    """Makes the connection pools of one process to the Redis of the settings."""

    def __init__(self, settings: RedisSettings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self.behind = settings.sentinels()
        """Where the Sentinels are; None without them."""

    def __repr__(self) -> str:
        """Return the address without credentials: Celery prints its options."""
        return f"{type(self).__name__}({self._settings.url})"

    def connection_class(self, *, tls: bool) -> type[Any]:
        """Return the class of connections."""
        if self.behind is not None:
            return SentinelTlsConnection if tls else SentinelConnection
        return TlsConnection if tls else Connection

    def pool(self, **options: Any) -> Any:
        """Return a new connection pool.

        Args:
            options: of the connections, as for `redis.ConnectionPool`: credentials, database, time-outs and TLS. Host
                and port are not used behind Sentinels.
        """
        given = options.pop("connection_class", redis.Connection)
        if not issubclass(given, _Following):
            given = self.connection_class(tls=issubclass(given, redis.SSLConnection))
        if self.behind is None:
            return redis.ConnectionPool(connection_class=given, **options)
        options = {name: value for name, value in options.items() if name not in ("host", "port", "retry_on_timeout")}
        # A retry inside a command would go to the old address again: callers repeat the whole call.
        options["retry"] = Retry(NoBackoff(), 0)
        return SentinelConnectionPool(self.behind.primary, self, connection_class=given, **options)  # type: ignore[no-untyped-call]

    def pool_of_settings(self, **options: Any) -> Any:
        """Return a new connection pool with the credentials, the database and the TLS files of the settings."""
        address: dict[str, Any] = redis.connection.parse_url(self._settings.secret_url())  # type: ignore[no-untyped-call]
        return self.pool(**address, **options)

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary that the Sentinels name; redis-py calls it for each new connection.

        Raises:
            NoPrimary, NoSentinel, UnknownPrimary, SentinelDenied: there is none.
        """
        return self._sentinels().discover_master(service_name)

    def watch(self, connection: Any) -> None:
        """Cut a connection, which has just been opened, once its server is no longer the primary."""
        self._sentinels().watch(connection)

    def await_server(self, seconds: float) -> None:
        """Wait up to `seconds` until the Sentinels name a server that accepts connections.

        Returns at once without Sentinels, and when a Sentinel denies access or none answers: the attempt to connect,
        which follows, says what is wrong.
        """
        end = time.monotonic() + seconds
        while self.behind is not None and time.monotonic() < end:
            try:
                address = self.discover_master(self.behind.primary)
                with socket.create_connection(address, timeout=_SENTINEL_SECONDS):
                    return
            except (NoPrimary, OSError):
                time.sleep(_ASK_AGAIN_SECONDS)
            except RedisError:
                return

    def states(self) -> list[dict[str, Any] | str]:
        """Ask every Sentinel what it knows of the primary; an answer is its state, or why there is none."""
        return [] if self.behind is None else self._sentinels().states()

    def quorum(self) -> str:
        """Return what a Sentinel answers about a failover now: OK, NOQUORUM, or that it denies the question."""
        return "" if self.behind is None else self._sentinels().quorum()

    def _sentinels(self) -> _Sentinels:
        """Return the Sentinels, which all pools of a process share; a child process gets its own."""
        if self.behind is None:
            raise AssertionError("only a pool behind Sentinels asks for them")
        with _known_lock:
            if self._settings not in _known:
                _known[self._settings] = _Sentinels(self._settings, self.behind)
            return _known[self._settings]


class _Answer(NamedTuple):
    address: tuple[str, int]
    epoch: int
    """Number of the failover that made this server the primary: the highest is right."""

    is_up: bool


class _Sentinels:
    """The Sentinels of one primary, and all connections of this process that they led to. Thread-safe."""

    def __init__(self, settings: RedisSettings, behind: SentinelAddress) -> None:
        self._primary = behind.primary
        self._clients = [_client(settings, *host) for host in behind.hosts]
        self._lock = threading.Lock()
        self._epoch = -1
        self._connections: WeakSet[Any] = WeakSet()
        self._thread: threading.Thread | None = None

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary; redis-py calls it before every new connection.

        The first Sentinel answers whose knowledge is not older than that of the others: one that is cut off from them
        still names the previous primary.

        Raises:
            NoPrimary, NoSentinel, UnknownPrimary, SentinelDenied: there is none.
        """
        answers = 0
        last: RedisError | None = None
        for client in list(self._clients):
            try:
                found = _ask(client, service_name)
            except SentinelDenied:
                raise
            except RedisError as error:
                last = error
                continue
            answers += 1
            if found.is_up and found.epoch >= self._epoch:
                with self._lock:
                    self._epoch = max(self._epoch, found.epoch)
                    self._clients.remove(client)
                    self._clients.insert(0, client)
                return found.address
        if answers:
            raise NoPrimary(f"the Sentinels name no primary `{service_name}` that is up: a failover may be going on")
        if isinstance(last, UnknownPrimary):
            raise last
        raise NoSentinel(f"none of the {len(self._clients)} Sentinels answers: {last!s:.200}")

    def watch(self, connection: Any) -> None:
        """Cut a connection, which has just been opened, once its server is no longer the primary."""
        with self._lock:
            self._connections.add(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redis-primary", daemon=True)
                self._thread.start()

    def states(self) -> list[dict[str, Any] | str]:
        """Return what each Sentinel knows of the primary, or why it does not say."""
        found: list[dict[str, Any] | str] = []
        for client in list(self._clients):
            try:
                found.append(dict(_translated(client, lambda client: client.sentinel_master(self._primary))))
            except RedisError as error:
                found.append(f"{error!s:.200}")
        return found

    def quorum(self) -> str:
        """Return the answer of the first Sentinel that answers to `SENTINEL CKQUORUM`."""
        primary = self._primary
        for client in list(self._clients):
            try:
                # In one word, redis-py would make a truth value of the answer.
                return str(_translated(client, lambda client: client.execute_command("SENTINEL", "CKQUORUM", primary)))
            except SentinelDenied:
                return "the user at the Sentinels lacks +sentinel|ckquorum, so the quorum was not checked"
            except ResponseError as error:
                return str(error)
            except RedisError:
                continue
        return ""

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            with self._lock:
                connections = [connection for connection in self._connections if connection._sock is not None]
                if not connections:  # the next new connection starts another thread
                    self._thread = None
                    return
            with suppress(Exception):  # whatever fails now, the next question follows in a second
                self._cut_others(connections)

    def _cut_others(self, connections: list[Any]) -> None:
        newest = self._newest()
        if newest is None:
            return
        for connection in connections:
            sock = connection._sock
            if sock is not None and (connection.host, connection.port) != newest.address:
                with suppress(OSError):
                    # Not `close`: another thread may be reading. It gets the end of the stream, also below TLS.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _newest(self) -> _Answer | None:
        """Return the newest answer of all Sentinels."""
        answers = []
        for client in list(self._clients):
            with suppress(RedisError):
                answers.append(_ask(client, self._primary))
        newest = max(answers, key=lambda answer: answer.epoch, default=None)
        if newest is None:
            return None
        with self._lock:
            if len(answers) > len(self._clients) // 2:  # also after all Sentinels were set up again, from epoch 0
                self._epoch = newest.epoch
            return newest if newest.epoch >= self._epoch else None


def _client(settings: RedisSettings, host: str, port: int) -> Any:
    """Return a client of one Sentinel. It tries each command once, within a second."""
    tls = {}
    if settings.url.startswith("sentinels://"):
        tls = {"ssl": True, **dict(parse_qsl(urlsplit(settings.secret_url()).query))}
    return redis.Redis(
        host=host,
        port=port,
        username=settings.sentinel_username or None,
        password=settings.sentinel_password.get_secret_value() or None,
        socket_timeout=_SENTINEL_SECONDS,
        socket_connect_timeout=_SENTINEL_SECONDS,
        decode_responses=True,
        client_name="maskmill-sentinel",
        retry=Retry(NoBackoff(), 0),
        **tls,  # type: ignore[arg-type]
    )


def _ask(client: Any, primary: str) -> _Answer:
    state = _translated(client, lambda client: client.sentinel_master(primary))
    is_up = state["is_master"] and not state["is_sdown"] and not state["is_odown"]
    return _Answer((state["ip"], state["port"]), int(state["config-epoch"]), is_up)


def _translated(client: Any, question: Callable[[Any], Any]) -> Any:
    try:
        return question(client)
    except (AuthenticationError, NoPermissionError) as error:
        raise SentinelDenied(str(error)) from error
    except ResponseError as error:
        if "No such master" in str(error):
            raise UnknownPrimary(str(error)) from error
        raise


_known: dict[RedisSettings, _Sentinels] = {}
_known_lock = threading.Lock()


def _forget() -> None:
    """Start again in a child process, which has no thread of its parent and must not use its sockets."""
    global _known_lock  # noqa: PLW0603 -- the parent may have held it at the fork
    _known_lock = threading.Lock()
    _known.clear()


os.register_at_fork(after_in_child=_forget)
