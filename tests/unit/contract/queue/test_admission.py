from __future__ import annotations

import json

import pytest

from support.hostile import DROPPED, REFUSED, body, chunk, envelope
from worker.contract.errors import BadMessage
from worker.contract.queue import admission

BEHIND_THE_PARSER = {"no JSON", "deep"}


@pytest.mark.parametrize("kind", sorted(DROPPED.keys() - BEHIND_THE_PARSER))
def test_what_is_no_chunk_message_does_not_get_in(tmp_path, kind):
    with pytest.raises(BadMessage):
        admission.admit(json.loads(DROPPED[kind](tmp_path / "canary")))


@pytest.mark.parametrize("kind", REFUSED)
def test_contents_are_not_the_gates_business(tmp_path, kind):
    admission.admit(json.loads(REFUSED[kind](tmp_path / "canary")))


def test_the_largest_message_that_there_can_be_gets_in():
    keys = ["\x01" * 1024] * 256  # escaped as \u0001 each

    admission.admit(json.loads(envelope(body(chunk(keys=keys)))))
