from __future__ import annotations

import json

import pytest

from support.hostile import DROPPED, REFUSED, body, chunk, envelope
from worker.contract.errors import BadMessage
from worker.contract.queue import admission

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
