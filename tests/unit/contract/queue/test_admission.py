from __future__ import annotations

import json
import zlib

import kombu
import pytest

from support.hostile import DROPPED, REFUSED, body, chunk, envelope
from worker.contract import redis_keys
from worker.contract.errors import BadMessage
from worker.contract.ledger.primary import Primary
from worker.contract.queue import admission
from worker.contract.settings import RedisSettings

REFUSED_BY_THE_PARSER = {"no JSON", "deep"}


@pytest.mark.parametrize("kind", sorted(DROPPED.keys() - REFUSED_BY_THE_PARSER))
def test_anything_but_a_chunk_message_is_refused(tmp_path, kind):
    with pytest.raises(BadMessage):
        admission.admit(json.loads(DROPPED[kind](tmp_path / "canary")))


@pytest.mark.parametrize("kind", REFUSED)
def test_admission_does_not_check_the_chunk(tmp_path, kind):
    admission.admit(json.loads(REFUSED[kind](tmp_path / "canary")))


def test_the_largest_possible_message_is_admitted():
    keys = ["\x01" * 1024] * 256  # each escaped as \u0001

    admission.admit(json.loads(envelope(body(chunk(keys=keys)))))


def test_nothing_but_the_task_comes_through():
    """Celery reads callbacks and chains from headers, too, if the body lacks them; kombu reads a reply address."""
    call = [{"task": "celery.chord_unlock"}]
    message = json.loads(
        envelope(body(chunk()), callbacks=call, errbacks=call, chain=call, chord=call, stamps={"a": 1})
    )
    message["properties"] |= {"reply_to": "elsewhere", "priority": 9, "correlation_id": ["x"]}
    message["surplus"] = 1

    admitted = admission.admit(message)

    assert not {"callbacks", "errbacks", "chain", "chord", "stamps"} & admitted["headers"].keys()
    assert admitted == admission.admit(json.loads(envelope(body(chunk()))))


def test_a_message_that_came_back_stays_marked_and_readable():
    message = json.loads(envelope(zlib.compress(body(chunk())), compression=admission.COMPRESSION))
    message["headers"]["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True

    admitted = admission.admit(message)

    assert admitted["headers"]["redelivered"] and admitted["properties"]["delivery_info"]["redelivered"]
    assert admission.admit(json.loads(json.dumps(admitted))) == admitted


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("headers", {"id": "job.1.\u0664", "root_id": "job.1.\u0664"}),
        ("headers", {"id": f"job.1.{'9' * 400}", "root_id": f"job.1.{'9' * 400}"}),
        ("headers", {"id": f"{'j' * 65}.1.1", "root_id": f"{'j' * 65}.1.1"}),
        ("headers", {"timelimit": 5}),
        ("headers", {"timelimit": [[None], None]}),
        ("headers", {"compression": ["application/x-gzip"]}),
        ("properties", {"delivery_tag": "x" * 65}),
        ("properties", {"delivery_tag": "a\nb"}),
        ("properties", {"delivery_info": {"exchange": "", "routing_key": ["images"]}}),
    ],
)
def test_values_of_another_form_are_refused(part, changes):
    message = json.loads(envelope(body(chunk())))
    message[part] |= changes

    with pytest.raises(BadMessage):
        admission.admit(message)


@pytest.mark.parametrize(
    "embedded", [{}, {"callbacks": None}, {"callbacks": [], "errbacks": None, "chain": None, "chord": None}, None, []]
)
def test_a_body_that_leaves_calls_to_the_headers_is_refused(embedded):
    with pytest.raises(BadMessage):
        admission.admit(json.loads(envelope(json.dumps([[chunk()], {}, embedded]).encode())))


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], [{"a": 1}]])
def test_nested_arguments_are_refused(value):
    with pytest.raises(BadMessage):
        admission.admit(json.loads(envelope(body(chunk(keys=value)))))


def test_whatever_goes_wrong_the_message_is_dropped(monkeypatch):
    def fails(message):
        raise ZeroDivisionError

    monkeypatch.setattr(admission, "admit", fails)
    transport = object.__new__(admission.Transport)
    reasons = []
    transport.on_refused = reasons.append

    transport._deliver({}, redis_keys.QUEUE)

    assert reasons == ["its form is not that of a chunk message"]


def test_control_with_several_urls_kombu_would_leave_admission_after_a_failed_attempt():
    """Therefore there is one URL, whatever the number of Sentinels."""
    urls = "sentinel://127.0.0.1:1;sentinel://127.0.0.1:2"
    ours = f"{admission.__name__}:Transport"
    options = {"primary": Primary(RedisSettings())}
    with kombu.Connection(urls, transport=ours, transport_options=options) as connection:
        connection.maybe_switch_next()

        assert connection.transport_cls != ours
