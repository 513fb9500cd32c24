"""Leave layers of a quantised network in float."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from worker.convert.int8.layers import has_constant_weights, layers, quantisers_before, remove_quantiser
from worker.convert.int8.rounding_noise import LayerNoise


def leave_in_float(quantised: Any, exact: Any, noisy: Iterable[LayerNoise]) -> None:
    """Take the quantisers away that stand before layers; where the weights make most of the noise, restore them too.

    Args:
        quantised: changed in place. A quantiser that feeds other layers as well is taken from them too.
        exact: float network that `quantised` was made of.
        noisy: the layers. Those whose weights stay in INT8 remain as small as before.
    """
    present, original = layers(quantised), layers(exact)
    for noise in noisy:
        layer = present[noise.name]
        for quantiser in quantisers_before(layer):
            remove_quantiser(quantiser)
        if noise.from_weights and has_constant_weights(original[noise.name]):
            layer.input(1).replace_source_output(original[noise.name].input_value(1))
    quantised.validate_nodes_and_infer_types()
