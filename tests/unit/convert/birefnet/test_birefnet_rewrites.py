"""The weight arithmetic of the exact rewrites, compared with a slow convolution in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from worker.convert.birefnet import rewrites


def convolve(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, pad: int = 0) -> np.ndarray:
    image = np.pad(image, ((0, 0), (pad, pad), (pad, pad))).astype(np.float64)
    kernel = weight.shape[-1]
    views = np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    return np.einsum("ihwab,oiab->ohw", views, weight.astype(np.float64)) + bias[:, None, None]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_a_folded_scale_equals_scaling_afterwards(rng):
    image, weight, bias = draw(rng, 3, 8, 8), draw(rng, 5, 3, 3, 3), draw(rng, 5)
    scale, shift = draw(rng, 5), draw(rng, 5)
    want = convolve(image, weight, bias) * scale[:, None, None] + shift[:, None, None]

    assert np.allclose(convolve(image, *rewrites.fold_scale(weight, bias, scale, shift)), want, atol=1e-5)


def test_a_convolution_without_bias_gets_the_shift(rng):
    weight, scale, shift = draw(rng, 5, 3, 3, 3), draw(rng, 5), draw(rng, 5)

    assert np.array_equal(rewrites.fold_scale(weight, None, scale, shift)[1], shift)


def test_batch_norm_scale_is_the_published_formula(rng):
    gamma, beta, mean, variance = draw(rng, 5), draw(rng, 5), draw(rng, 5), rng.random(5).astype(np.float32)
    x = draw(rng, 5)
    scale, shift = rewrites.batch_norm_scale(gamma, beta, mean, variance)

    assert np.allclose(x * scale + shift, (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, atol=1e-5)


def test_a_pointwise_convolution_is_folded_into_the_one_before(rng):
    image, weight, bias, point = draw(rng, 3, 8, 8), draw(rng, 5, 3, 3, 3), draw(rng, 5), draw(rng, 2, 5, 1, 1)
    want = convolve(convolve(image, weight, bias), point, np.zeros(2))

    assert np.allclose(convolve(image, *rewrites.then_pointwise(weight, bias, point)), want, atol=1e-5)


def test_two_convolutions_compose_to_one(rng):
    image = draw(rng, 3, 12, 12)
    one, two = (draw(rng, 6, 3, 3, 3), draw(rng, 6)), (draw(rng, 2, 6, 3, 3), draw(rng, 2))
    weight, bias = rewrites.compose(*one, *two)

    assert weight.shape == (2, 3, 5, 5)
    assert np.allclose(convolve(image, weight, bias), convolve(convolve(image, *one), *two), atol=1e-4)


def test_every_rewrite_has_a_name_and_the_default_ones_exist():
    assert frozenset(rewrites.Rewrite) >= rewrites.ALL
    assert rewrites.Rewrite("output-conv") in rewrites.ALL
