from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from worker.contract.input_size import InputSize


class Facts(BaseModel):
    size: InputSize


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", InputSize(512, 512)),
        (512, InputSize(512, 512)),
        ("1440x2560", InputSize(1440, 2560)),
        (" 96x128 ", InputSize(96, 128)),
    ],
)
def test_height_comes_first_and_one_number_is_a_square(text, size):
    assert InputSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "512x", "x512", "1024X1024", "1x2x3", "1024*1024", "123456", "01x2"])
def test_other_texts_are_refused_with_the_expected_form(text):
    with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
        InputSize.parse(text)


@pytest.mark.parametrize(
    ("size", "written", "short", "label"),
    [
        (InputSize.square(512), '{"size":512}', "512", "512x512"),
        (InputSize(1440, 2560), '{"size":"1440x2560"}', "1440x2560", "1440x2560"),
    ],
)
def test_a_square_is_written_as_a_number_as_before(size, written, short, label):
    assert Facts(size=size).model_dump_json() == written
    assert Facts.model_validate_json(written).size == size
    assert (size.short, str(size)) == (short, label)


@pytest.mark.parametrize("value", [None, True, 1.5, [512, 512], {"height": 1}])
def test_other_types_are_refused(value):
    with pytest.raises(ValidationError):
        Facts(size=value)


def test_sizes_have_an_order_and_an_area():
    assert sorted([InputSize(1024, 1024), InputSize(512, 512), InputSize(512, 1024)])[0] == InputSize(512, 512)
    assert InputSize(3, 5).pixels == 15 and not InputSize(3, 5).is_square


@pytest.mark.parametrize(
    ("size", "expected"), [(InputSize(64, 96), True), (InputSize(64, 100), False), (InputSize(0, 64), False)]
)
def test_both_sides_must_be_positive_multiples(size, expected):
    assert size.is_multiple_of(32) is expected
