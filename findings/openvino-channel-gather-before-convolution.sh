#!/bin/sh
# OpenVINO 2026.4.1, CPU: a Gather that reorders channels before a Convolution gives wrong numbers.
#
# The graph is Gather(axis 1, constant indices) -> Convolution. When it is compiled, the Gather disappears: the reordering
# moves into the input channels of the convolution's weights. It should move there as the inverse permutation, but it
# moves as the permutation itself. So the answer is right only where both are the same: swapping two channels (red and
# blue), reversing all of them, or not reordering. A rotation of the channels, or the order [2, 0, 3, 1], gives the answer
# of another network, with no warning. Neither an Add between the two operations prevents it, nor
# a Gather of the last axis between two Transposes. Reordering the weights themselves is right.
#
# For maskmill: reorder weights, not channels (`worker/convert/birefnet/tile_order.py`); compare an imported network with
# another runtime before it is used (`worker model import`).
#
# Output seen:
#   openvino 2026.4.1
#   order [2, 0, 3, 1]: off by 5.0598
#   its answer is that of weights reordered by the same order, to 0.0000
#   order [1, 0, 3, 2]: off by 0.0000
#   with an Add between, order [2, 0, 3, 1]: off by 5.0598
#   with a Transpose, Gather and Transpose instead, order [2, 0, 3, 1]: off by 5.0598
#
# Needs Python 3.11 to 3.13 and a package index. Exits 0 while the behaviour is as described, else 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.3.4
cat > "$folder/show.py" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import openvino as ov
from openvino import opset13 as op

rng = np.random.default_rng(0)
pixels = rng.standard_normal((1, 4, 2, 2)).astype(np.float32)
weights = rng.standard_normal((3, 4, 1, 1)).astype(np.float32)


def network(order, between=0.0):
    """Gather of the channels, perhaps an Add, and a 1x1 convolution."""
    image = op.parameter([1, 4, 2, 2], ov.Type.f32)
    value = op.gather(image, op.constant(np.array(order, np.int64)), op.constant(np.int64(1)))
    if between:
        value = op.add(value, op.constant(np.float32(between)))
    return ov.Model([op.convolution(value, op.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])], [image])


def transposed(order):
    """The same as `network`, with the channels reordered while they are last."""
    image = op.parameter([1, 4, 2, 2], ov.Type.f32)
    last = op.transpose(image, op.constant(np.array([0, 2, 3, 1])))
    value = op.gather(last, op.constant(np.array(order, np.int64)), op.constant(np.int64(3)))
    value = op.transpose(value, op.constant(np.array([0, 3, 1, 2])))
    return ov.Model([op.convolution(value, op.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])], [image])


def convolved(channels, kernel=weights):
    return np.einsum("oc,nchw->nohw", kernel[:, :, 0, 0], channels)


def compiled(model):
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)[0]


def off(answer, truth):
    return float(np.abs(answer - truth).max())


def near(value):
    return value < 1e-5


print("openvino", version("openvino"))
mixed, swapped = [2, 0, 3, 1], [1, 0, 3, 2]
truth = convolved(pixels[:, mixed])
wrong = off(compiled(network(mixed)), truth)
print(f"order {mixed}: off by {wrong:.4f}")
same_order = off(compiled(network(mixed)), convolved(pixels, weights[:, mixed]))
print(f"its answer is that of weights reordered by the same order, to {same_order:.4f}")
involution = off(compiled(network(swapped)), convolved(pixels[:, swapped]))
print(f"order {swapped}: off by {involution:.4f}")
with_add = off(compiled(network(mixed, 0.5)), convolved(pixels[:, mixed] + np.float32(0.5)))
print(f"with an Add between, order {mixed}: off by {with_add:.4f}")
with_transpose = off(compiled(transposed(mixed)), truth)
print(f"with a Transpose, Gather and Transpose instead, order {mixed}: off by {with_transpose:.4f}")
as_described = wrong > 1 and near(same_order) and near(involution) and with_add > 1 and with_transpose > 1
sys.exit(0 if as_described else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
