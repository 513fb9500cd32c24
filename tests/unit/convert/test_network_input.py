"""Pictures are prepared with the normalisation of the network, as the engine does in its graph."""

from __future__ import annotations

import numpy as np
import pytest

from worker.convert.network_input import network_input
from worker.model.inference.facts import InputScaling, NetworkFacts

PIXELS = np.random.default_rng(0).integers(0, 200, (2, 8, 9, 3), dtype=np.uint8)


def test_mean_and_scale_are_those_of_the_network():
    got = network_input(PIXELS, NetworkFacts((127.5,) * 3, (255.0,) * 3))

    assert got.dtype == np.float32 and got.shape == (2, 3, 8, 9) and got.flags.c_contiguous
    assert got[1, 2, 3, 4] == pytest.approx((PIXELS[1, 3, 4, 2] - 127.5) / 255)


def test_each_picture_is_scaled_to_its_own_maximum():
    pixels = PIXELS.copy()
    pixels[1] //= 4

    got = network_input(pixels, NetworkFacts((0.0,) * 3, (255.0,) * 3, InputScaling.PICTURE_MAXIMUM))

    assert got[0].max() == pytest.approx(1) and got[1].max() == pytest.approx(1)
    assert not network_input(pixels * 0, NetworkFacts((0.0,) * 3, (255.0,) * 3, InputScaling.PICTURE_MAXIMUM)).any()


def test_blue_comes_first_where_the_network_says_so():
    facts = NetworkFacts((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), reverse_input_channels=True)

    got = network_input(PIXELS, facts)

    assert got[0, 0, 0, 0] == PIXELS[0, 0, 0, 2] - 1 and got[0, 2, 0, 0] == PIXELS[0, 0, 0, 0] - 3


def test_without_facts_the_values_of_imagenet_count():
    assert network_input(PIXELS, NetworkFacts())[0, 0, 0, 0] == pytest.approx((PIXELS[0, 0, 0, 0] - 123.675) / 58.395)
