"""Plain Celery, the peer of chaos: it finds Redis by its URL, and its plan of faults follows from the seed."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from benchmarks.celery_failover import plan
from worker.bench.plain_celery import plain_broker
from worker.contract.settings import RedisSettings


def test_sentinels_are_listed_as_celery_reads_them():
    settings = RedisSettings(
        url="sentinel://a:1,b:2/mymaster/3",
        username="me",
        password=SecretStr("p/w"),
        sentinel_password=SecretStr("s"),
        prefix="x:",
    )

    url, options = plain_broker(settings)

    assert url == "sentinel://me:p%2Fw@a:1/3;sentinel://me:p%2Fw@b:2/3"
    assert options["master_name"] == "mymaster" and options["global_keyprefix"] == "x:p:"
    assert options["sentinel_kwargs"]["password"] == "s"


def test_one_server_needs_no_options_of_sentinels():
    settings = RedisSettings(url="redis://a:1/0", password=SecretStr("w"))

    assert plain_broker(settings) == ("redis://:w@a:1/0", {"global_keyprefix": "maskmill:p:"})


def test_tls_to_sentinels_is_refused_rather_than_left_out():
    with pytest.raises(ValueError, match="without TLS"):
        plain_broker(RedisSettings(url="sentinels://a:1/mymaster"))


def test_a_seed_decides_the_plan():
    events = plan(7, 600, worker_every=5, primary_every=30)

    assert events == plan(7, 600, worker_every=5, primary_every=30) != plan(8, 600, worker_every=5, primary_every=30)
    assert [event.at for event in events] == sorted(event.at for event in events)
    kills = {what: sum(event.what == what for event in events) for what in ("worker", "primary")}
    assert 100 < kills["worker"] < 140 and 16 < kills["primary"] < 24
