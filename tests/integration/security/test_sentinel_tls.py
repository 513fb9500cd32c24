"""TLS to the Sentinels and to the primary that they name: both are verified, and both get the client's certificate.

The embedded Valkey has no TLS, so each server has a front that terminates it. The Sentinel sees the server's own port.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from support import commands, tls_front
from support.certificates import Certificates
from support.sentinels import NAME, Server
from support.shared_workers import PASSWORD, own_redis
from worker.contract.errors import BrokerUnavailable
from worker.contract.ledger import primary
from worker.contract.ledger.connection import RedisConnection
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import RedisSettings, Settings
from worker.standalone import ports

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates.make(tmp_path / "tls")


@pytest.fixture
def behind_tls(tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisSettings]:
    """Run a primary and a Sentinel, each behind a front."""
    chosen = ports.choose({"sentinel": (0,), "front": (0,), "sentinel-front": (0,)})
    with ExitStack() as stack:
        data = stack.enter_context(own_redis(tmp_path))
        sentinel = Server(chosen["sentinel"], tmp_path / "sentinel", is_sentinel=True)
        sentinel.folder.mkdir()
        (sentinel.folder / "server.conf").write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\ndir {sentinel.folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {data.port} 1\nsentinel auth-pass {NAME} {PASSWORD}\n"
        )
        sentinel.start()
        stack.callback(sentinel.kill)
        for front, target in (("front", data.port), ("sentinel-front", sentinel.port)):
            stack.callback(_end, _front(chosen[front], target, certificates))

        ask = primary._ask

        def ask_for_the_front(client: object, name: str) -> object:
            return ask(client, name)._replace(address=("127.0.0.1", chosen["front"]))

        monkeypatch.setattr(primary, "_ask", ask_for_the_front)
        settings = RedisSettings(
            url=f"sentinels://localhost:{chosen['sentinel-front']}/{NAME}",
            password=SecretStr(PASSWORD),
            ca_file=certificates.authority,
            cert_file=certificates.client.certificate,
            key_file=certificates.client.key,
        )
        commands.wait_for(lambda: _answers(settings), "the servers", 20)
        yield settings


def _front(port: int, target: int, certificates: Certificates) -> subprocess.Popen[bytes]:
    pair = certificates.server
    files = (pair.certificate, pair.key, certificates.authority)
    return subprocess.Popen([sys.executable, tls_front.__file__, str(port), str(target), *map(str, files)])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def _answers(settings: RedisSettings) -> bool:
    with RedisConnection(settings, retries=0, client_name="t") as connection:
        try:
            return bool(connection.call(connection.client.ping))
        except BrokerUnavailable:
            return False


def test_ledger_and_queue_reach_the_primary_over_tls(behind_tls):
    assert _answers(behind_tls)
    with make_celery(Settings(redis=behind_tls)) as celery, celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        celery.backend.store_result("job.0.0", {"outcomes": ["ok"]}, "SUCCESS")
        assert celery.AsyncResult("job.0.0").result == {"outcomes": ["ok"]}


def test_another_authority_is_refused(behind_tls, certificates):
    wrong = behind_tls.model_copy(update={"ca_file": certificates.unrelated})
    connection = RedisConnection(wrong, retries=0, client_name="t")
    with connection, pytest.raises(BrokerUnavailable, match=r"none of the 1 Sentinels answers.*certificate"):
        connection.call(connection.client.ping)
