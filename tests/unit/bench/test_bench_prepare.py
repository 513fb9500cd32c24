"""Random weights and the generated picture."""

from __future__ import annotations

import numpy as np
import pytest

from worker.bench.harness.picture import picture
from worker.bench.prepare import _random, arrays
from worker.contract.errors import MaskmillError
from worker.contract.input_size import InputSize
from worker.convert.birefnet import layout


def test_random_weights_have_the_shapes_of_the_network_and_are_called_random():
    found, words = arrays(None)

    assert {name: array.shape for name, array in found.items()} == layout.required()
    assert all(array.dtype == np.float32 for array in found.values())
    assert words.startswith("random")


def test_random_weights_are_the_same_everywhere():
    first, second, other = (_random(name, (8, 3, 3, 3)) for name in ("a.weight", "a.weight", "b.weight"))

    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_variances_are_positive_and_scales_about_one():
    assert (_random("bn.running_var", (500,)) > 0).all()
    assert abs(_random("bn.weight", (500,)).mean() - 1) < 0.05
    assert abs(_random("bn.bias", (500,)).mean()) < 0.05


def test_a_file_that_is_not_a_checkpoint_is_an_error(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"no checkpoint")

    with pytest.raises(MaskmillError, match=r"model\.safetensors"):
        arrays(str(file))


@pytest.mark.parametrize("size", [32, 256])
def test_the_picture_is_the_same_everywhere_and_not_flat(size):
    image = picture(InputSize.square(size))

    assert image.shape == (1, size, size, 3) and image.dtype == np.uint8
    assert np.array_equal(image, picture(InputSize.square(size)))
    assert image.std() > 20
