"""TLS: all three Redis clients (the ledger, Celery's broker and its result backend) verify the server."""

from __future__ import annotations

import pytest
import redis
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from support.redis_users import PASSWORDS, PREFIX, PRODUCER, WORKER, SecuredRedis
from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage
from worker.contract.queue import celery_app
from worker.contract.settings import RedisSettings, Settings

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


def settings(secured: SecuredRedis, user: str, **changes: object) -> Settings:
    own = secured.certificates.client
    fields = {
        "url": f"rediss://localhost:{secured.tls_port}/0",
        "username": user,
        "password": SecretStr(PASSWORDS[user]),
        "prefix": PREFIX,
        "ca_file": secured.certificates.authority,
        "cert_file": own.certificate,
        "key_file": own.key,
    }
    return Settings(redis=RedisSettings(**fields | changes))


def test_the_server_facts_are_read_over_tls(secured):
    with Ledger(settings(secured, WORKER).redis) as ledger:
        assert ledger.connection.check()["append_only"] == "yes"


def test_messages_and_results_are_sent_over_tls(secured):
    app = celery_app.make_celery(settings(secured, WORKER))
    app.backend.store_result("job.0.0", {"outcomes": ["ok"]}, "SUCCESS")
    app.close()
    app = celery_app.make_celery(settings(secured, PRODUCER))

    assert celery_app.publish(app, [ChunkMessage(job="job", chunk=0, start=0, keys=("a.jpg",))]) == 1
    assert app.AsyncResult("job.0.0").result == {"outcomes": ["ok"]}
    app.close()


def test_a_worker_may_restore_lost_messages(secured):
    app = celery_app.make_celery(settings(secured, WORKER))
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = app.amqp.queues[redis_keys.QUEUE](channel)
        queue.purge()
        celery_app.publish(app, [ChunkMessage(job="lost", chunk=0, start=0, keys=("a.jpg",))])
        taken = queue.get(accept=["json"])

        channel.qos.restore_by_tag(taken.delivery_tag)

        again = queue.get(no_ack=True, accept=["json"])
    app.close()
    assert again.headers["id"] == redis_keys.task_id("lost", 0, 0)


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate of ours", "no TLS"])
def test_clients_refuse_an_untrusted_server(secured, wrong):
    changes: dict[str, object] = {
        "authority": {"ca_file": secured.certificates.unrelated},
        # An address of the same server that is not in its certificate.
        "name": {"url": f"rediss://127.0.0.2:{secured.tls_port}/0"},
        "no certificate of ours": {"cert_file": None, "key_file": None},
        "no TLS": {"url": f"redis://localhost:{secured.tls_port}/0"}
        | dict.fromkeys(("ca_file", "cert_file", "key_file")),
    }[wrong]
    config = settings(secured, PRODUCER, **changes)

    with Ledger(config.redis, retries=0) as ledger, pytest.raises(BrokerUnavailable) as raised:
        ledger.connection.check()
    assert PASSWORDS[PRODUCER] not in str(raised.value)

    app = celery_app.make_celery(config)
    with app.connection_for_write() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=1, interval_start=0)
    with pytest.raises(redis.ConnectionError):
        app.backend.client.ping()
    app.close()
