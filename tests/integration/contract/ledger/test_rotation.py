"""An index with more jobs than are read at once: looks take turns, and each job is reached within a known number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import pytest

from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable
from worker.contract.ledger import records
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import Records

PART = 40


def add(ledger: Ledger, names: Iterable[str]) -> set[str]:
    prefix, pipeline = ledger.connection.prefix, ledger.connection.client.pipeline(transaction=False)
    for name in (names := set(names)):
        options = {"source": "s3://b/in/", "dest": f"s3://b/{name}/"}
        record = {"job": name, "status": "paused", "options": json.dumps(options), "created_at": 1, "epoch": 0}
        record |= {"total": 6, "chunks": 2, "chunk_images": 3, "cursor": 0}
        pipeline.hset(redis_keys.job(prefix, name), mapping=record)
        pipeline.sadd(redis_keys.active(prefix), name)
    pipeline.execute()
    return names


def look(reader: Records) -> set[str]:
    found, unreadable, unknown = reader.active()
    assert (unreadable, unknown) == ([], [])
    names = [job.view.job for job in found]
    assert len(names) == len(set(names)), "a job twice in one look"
    return set(names)


def looks(reader: Records, count: int) -> set[str]:
    """Return the jobs of so many looks."""
    found = [look(reader) for _ in range(count)]
    assert all(len(part) <= PART for part in found)
    return set().union(*found)


@pytest.fixture
def small_parts(monkeypatch) -> None:
    monkeypatch.setattr(records, "MAX_ACTIVE", PART)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("count", [PART, PART + 1, 3 * PART, 300, 1000])
@pytest.mark.parametrize("name", ["job-{}", "{}"], ids=["names", "numbers"])  # Redis stores small sets in other forms
def test_every_job_is_reached_within_the_stated_number_of_looks(ledger, count, name):
    names = add(ledger, (name.format(number) for number in range(count)))
    reader = Records(ledger.connection)

    for _ in range(3):
        assert looks(reader, math.ceil(count / PART)) == names
        assert reader.rotation.ends_round
        assert reader.rotation.whole == (count <= PART)


@pytest.mark.parametrize("batch", [1, 7])
def test_every_job_is_reached_if_their_options_fill_the_memory(ledger, monkeypatch, batch):
    """A look then ends after one batch."""
    monkeypatch.setattr(records, "_BATCH", batch)
    monkeypatch.setattr(records, "_OPTIONS_BYTES", 0)
    names = add(ledger, (f"job-{number}" for number in range(50)))
    reader = Records(ledger.connection)

    for _ in range(2):
        assert looks(reader, math.ceil(50 / batch)) == names
        assert reader.rotation.ends_round and not reader.rotation.whole


@pytest.mark.usefixtures("small_parts")
def test_jobs_that_come_and_go_cost_the_others_no_turn(ledger):
    client, index = ledger.connection.client, redis_keys.active(ledger.connection.prefix)
    names = add(ledger, (f"job-{number}" for number in range(300)))
    reader, found, gone = Records(ledger.connection), set[str](), set[str]()

    for number in range(100):
        part = look(reader)
        assert not part & gone, "a job that left the index"
        found |= part
        if reader.rotation.ends_round:
            break
        left = {f"job-{number}"}
        client.srem(index, *left)
        gone |= left
        add(ledger, (f"new-{number}-{more}" for more in range(20)))  # Redis moves members to a larger table

    assert reader.rotation.ends_round and found >= names - gone


@pytest.mark.usefixtures("small_parts")
def test_foreign_members_take_turns_too_and_cost_no_memory(ledger):
    client, index = ledger.connection.client, redis_keys.active(ledger.connection.prefix)
    names = add(ledger, (f"job-{number}" for number in range(20)))
    client.sadd(index, "n" * 2**20, *(f"name of no job {number}" for number in range(2000)))
    reader = Records(ledger.connection)

    assert looks(reader, math.ceil(2021 / PART) + 1) == names


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("count", [PART, 300])
def test_a_look_that_fails_is_repeated(ledger, monkeypatch, count):
    names = add(ledger, (f"job-{number}" for number in range(count)))
    reader, found = Records(ledger.connection), set[str]()
    for _ in range(math.ceil(count / PART)):
        with monkeypatch.context() as patch:
            patch.setattr(reader, "_answers", lambda _: (_ for _ in ()).throw(BrokerUnavailable("away")))
            with pytest.raises(BrokerUnavailable):
                reader.active()
        found |= look(reader)

    assert found == names and reader.rotation.ends_round and reader.rotation.whole == (count == PART)


@pytest.mark.usefixtures("small_parts")
def test_a_cursor_of_another_server_costs_one_round_at_most(ledger):
    names = add(ledger, (f"job-{number}" for number in range(300)))
    reader = Records(ledger.connection)
    reader.rotation._cursor = "6148914691236517205"
    for _ in range(math.ceil(300 / PART)):
        look(reader)
        if reader.rotation.ends_round:
            break

    assert looks(reader, math.ceil(300 / PART)) == names


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("count", [0, 10, 300])
def test_the_parts_of_a_backlog_are_all_jobs_once(ledger, count):
    names = add(ledger, (f"job-{number}" for number in range(count)))

    parts = list(Backlog(ledger.connection).parts())

    assert sorted(job.view.job for part in parts for job in part) == sorted(names)
    assert len(parts) == max(1, math.ceil(count / PART))
