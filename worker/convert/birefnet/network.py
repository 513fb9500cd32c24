"""BiRefNet-lite for inference, as a static OpenVINO graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.convert.birefnet import layout
from worker.convert.birefnet.aspp import decoder_block
from worker.convert.birefnet.decoder import decode
from worker.convert.birefnet.encoder import encode
from worker.convert.birefnet.ops import Node, Scope, concat, height_width, named, resize
from worker.convert.birefnet.rewrites import ALL, Array, Rewrite

STRIDE = 32
"""The input size must be a multiple of this, because the deepest map is 32 times smaller."""


def build(weights: Mapping[str, Array], size: InputSize, rewrites: Iterable[Rewrite | str] = ALL) -> ov.Model:
    """Build the network.

    Args:
        weights: Arrays by published name, as `checkpoint.load` returns them.
        size: Of the input in pixels; a square, multiples of 32.
        rewrites: Exact rewrites to apply, by member or by name; `rewrites.NONE` gives the network as published.

    Returns:
        A model with static shapes: input `image` `[1, 3, R, R]` float32, RGB scaled to 0..1 and normalised with the
        ImageNet mean and standard deviation; output `logits` `[1, 1, R, R]` float32. The maps `bb.0` .. `bb.3`
        (half-size pass of the encoder), `squeeze` and `decoder_block4` .. `decoder_block1` (before their gates; the
        last only without `OUTPUT_CONV`) have tensor names, for `model.add_outputs`.

    Raises:
        SettingsError: The size is not a positive multiple of 32, or a rewrite is unknown.
        BundleError: An array is missing or has the wrong shape.
    """
    _check(weights, size)
    scope = Scope(weights, _named_rewrites(rewrites))
    image = opset.parameter([1, 3, size.height, size.width], np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    features = _two_scales(image, scope.at("bb"))
    deepest = height_width(features[3])
    context = concat([*(resize(feature, *deepest) for feature in features[:3]), features[3]])
    squeezed = named(decoder_block(context, scope.at("squeeze_module.0")), "squeeze")
    logits = decode(image, features, squeezed, scope.at("decoder"))
    return ov.Model([logits], [image], "birefnet_lite")


def _two_scales(image: Node, scope: Scope) -> list[Node]:
    """Return the features of the image, each concatenated with the enlarged features of the half-size image."""
    height, width = height_width(image)
    whole = encode(image, scope)
    half = encode(resize(image, height // 2, width // 2), scope)
    for index, feature in enumerate(half):
        named(feature, f"bb.{index}")
    return [concat([one, resize(other, *height_width(one))]) for one, other in zip(whole, half, strict=True)]


def _check(weights: Mapping[str, Array], size: InputSize) -> None:
    if not size.is_multiple_of(STRIDE):
        msg = f"input size {size}: height and width must be multiples of {STRIDE}; usual sizes are 512 and 1024"
        raise SettingsError(msg)
    wrong = [name for name, shape in layout.required().items() if name not in weights or weights[name].shape != shape]
    if wrong:
        msg = f"{len(wrong)} arrays of BiRefNet-lite are missing or have another shape: {', '.join(wrong)}"
        raise BundleError(msg)


def _named_rewrites(rewrites: Iterable[Rewrite | str]) -> frozenset[Rewrite]:
    try:
        return frozenset(Rewrite(name) for name in rewrites)
    except ValueError as error:
        msg = f"{error}; known rewrites: {', '.join(sorted(Rewrite))}"
        raise SettingsError(msg) from error
