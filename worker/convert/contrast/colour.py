"""Convert normalised sRGB to CIELAB, where distances roughly match perceived differences. First step of `contrast`."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from openvino import opset15 as op

from worker.convert.contrast.ops import Array, Node, planes, real, total
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE

RGB_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
"""Linear sRGB to CIE XYZ, rows X, Y, Z (IEC 61966-2-1). The sums of the rows are its white point, D65."""

SRGB_KNEE = 0.04045
"""Value up to which the sRGB transfer function is linear (IEC 61966-2-1)."""

KNEE = 6 / 29
"""Cube root of the ratio below which CIELAB is linear (CIE 15:2004, 8.2.1)."""

CURVE_DEGREE = 10


def cielab(image: Node) -> list[Node]:
    """Convert normalised sRGB `[1, 3, R, R]` to planes L*, a*, b*, within 0.25 of IEC 61966-2-1 and CIE 15:2004, 8.2.1.

    A polynomial and square roots replace the powers, which the CPU plugin does not vectorise and which would take a
    third of the model's time.
    """
    per_channel = (1, 3, 1, 1)
    scale, mean = np.reshape(IMAGENET_SCALE, per_channel) / 255, np.reshape(IMAGENET_MEAN, per_channel) / 255
    linear = planes(_linear(op.clamp(image * real(scale) + real(mean), 0.0, 1.0)))
    ratios = [total([value * real(k / sum(row)) for value, k in zip(linear, row, strict=True)]) for row in RGB_TO_XYZ]
    x, y, z = (_lightness(ratio) for ratio in ratios)
    return [y * real(116) - real(16), (x - y) * real(500), (y - z) * real(200)]


def srgb_to_linear(value: Array) -> Array:
    """Apply the transfer function of IEC 61966-2-1 to values in 0..1."""
    return np.where(value <= SRGB_KNEE, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _linear(srgb: Node) -> Node:
    """Compute `srgb_to_linear` as x times a Chebyshev fit of the quotient, so that black is exact (Horner's scheme)."""
    quotient = Chebyshev.interpolate(lambda x: srgb_to_linear(x) / x, CURVE_DEGREE - 1, domain=[0, 1])
    *lower, result = [float(k) for k in quotient.convert(kind=Polynomial).coef]
    value = real(result)
    for coefficient in reversed(lower):
        value = value * srgb + real(coefficient)
    return value * srgb


def _lightness(ratio: Node) -> Node:
    """Compute the cube root above the knee and its tangent below."""
    safe = op.maximum(ratio, real(KNEE**3))
    tangent = ratio * real(1 / (3 * KNEE**2)) + real(4 / 29)
    return op.select(op.greater(ratio, real(KNEE**3)), _cube_root(safe), tangent)


def _cube_root(value: Node) -> Node:
    """Refine x^(1/4 + 1/16 + 1/64), nearly x^(1/3), by one Newton step: relative error 6e-4 at the knee, less above."""
    fourth = op.sqrt(op.sqrt(value))
    sixteenth = op.sqrt(op.sqrt(fourth))
    guess = fourth * sixteenth * op.sqrt(op.sqrt(sixteenth))
    return (guess + guess + value / (guess * guess)) * real(1 / 3)
