"""BiRefNet for inference, as a static OpenVINO graph."""

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
from worker.convert.birefnet.layout import Backbone
from worker.convert.birefnet.ops import Node, Scope, concat, height_width, named, resize
from worker.convert.birefnet.rewrites import ALL, Array, Rewrite

STRIDE = 32
"""Height and width of the input must be multiples of this, because the deepest map is 32 times smaller."""


def build(weights: Mapping[str, Array], size: InputSize, rewrites: Iterable[Rewrite | str] = ALL) -> ov.Model:
    """Build the network.

    Args:
        weights: Arrays by published name, as `checkpoint.load` returns them. Their shapes tell the backbone.
        size: Of the input in pixels, multiples of 32.
        rewrites: Exact rewrites to apply, by member or by name; `rewrites.NONE` gives the network as published.

    Returns:
        A model with static shapes: input `image` `[1, 3, H, W]` float32, RGB scaled to 0..1 and normalised with the
        ImageNet mean and standard deviation; output `logits` `[1, 1, H, W]` float32. The maps `bb.0` .. `bb.3`
        (half-size pass of the encoder), `squeeze` and `decoder_block4` .. `decoder_block1` (before their gates; the
        last only without `OUTPUT_CONV`) have tensor names, for `model.add_outputs`.

    Raises:
        SettingsError: A side is not a positive multiple of 32, or a rewrite is unknown.
        BundleError: An array is missing or has the wrong shape.
    """
    backbone = layout.backbone_of({name: values.shape for name, values in weights.items()})
    _check(weights, size, backbone)
    scope = Scope(weights, _named_rewrites(rewrites), backbone)
    image = opset.parameter([1, 3, size.height, size.width], np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    features = _two_scales(image, scope.at("bb"))
    deepest = height_width(features[3])
    context = concat([*(resize(feature, *deepest) for feature in features[:3]), features[3]])
    squeezed = named(decoder_block(context, scope.at("squeeze_module.0")), "squeeze")
    logits = decode(image, features, squeezed, scope.at("decoder"))
    return ov.Model([logits], [image], "birefnet_lite" if backbone is layout.SWIN_T else "birefnet")


def _two_scales(image: Node, scope: Scope) -> list[Node]:
    """Return the features of the image, each concatenated with the enlarged features of the half-size image."""
    height, width = height_width(image)
    whole = encode(image, scope)
    half = encode(resize(image, height // 2, width // 2), scope)
    for index, feature in enumerate(half):
        named(feature, f"bb.{index}")
    return [concat([one, resize(other, *height_width(one))]) for one, other in zip(whole, half, strict=True)]


def _check(weights: Mapping[str, Array], size: InputSize, backbone: Backbone) -> None:
    if not size.is_multiple_of(STRIDE):
        msg = f"input size {size}: height and width must be multiples of {STRIDE}; usual sizes are 1024 and 1440x2560"
        raise SettingsError(msg)
    required = layout.required(backbone)
    wrong = [name for name, shape in required.items() if name not in weights or weights[name].shape != shape]
    if wrong:
        names = ", ".join(wrong)
        msg = f"{len(wrong)} arrays of BiRefNet with {backbone.name} are missing or have another shape: {names}"
        raise BundleError(msg)


def _named_rewrites(rewrites: Iterable[Rewrite | str]) -> frozenset[Rewrite]:
    try:
        return frozenset(Rewrite(name) for name in rewrites)
    except ValueError as error:
        msg = f"{error}; known rewrites: {', '.join(sorted(Rewrite))}"
        raise SettingsError(msg) from error
