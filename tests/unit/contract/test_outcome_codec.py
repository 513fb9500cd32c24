from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract import outcome_codec
from worker.contract.messages import OutcomeKind

IMAGES = st.binary(max_size=300).map(lambda data: bytes(value % 6 for value in data))
WANTED = st.sets(st.sampled_from(outcome_codec.KINDS), min_size=1)


@given(IMAGES)
def test_packing_loses_nothing(images):
    packed = outcome_codec.packed(images)

    assert len(packed) == (len(images) + 1) // 2
    assert outcome_codec.unpacked(packed)[: len(images)] == images


def test_the_first_image_is_in_the_high_bits_as_in_redis():
    assert outcome_codec.packed(bytes([1, 3, 5])) == b"\x13\x50"


@given(IMAGES, WANTED, st.integers(1, 64), st.integers(1, 100))
def test_chunks_are_found_for_any_pieces(images, wanted, size, piece):
    pieces = [images[first : first + piece] for first in range(0, len(images), piece)]

    found = list(outcome_codec.chunks_with(pieces, wanted, size))

    assert found == sorted({at // size for at, number in enumerate(images) if outcome_codec.KINDS[number] in wanted})


@pytest.mark.parametrize(("kind", "number"), [(OutcomeKind.OK, 1), (OutcomeKind.CANCELLED, 5)])
def test_numbers_are_those_of_the_scripts(kind, number):
    assert outcome_codec.NUMBERS[kind] == number
    assert outcome_codec.KINDS[number] is kind
