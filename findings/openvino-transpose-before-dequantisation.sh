#!/bin/sh
# OpenVINO 2026.4.1, CPU: a Transpose before a Convert takes the next convolution out of INT8.
#
# A network takes u8 levels with channels last. They become values (Convert, Multiply by the step) with channels first
# (Transpose), and a convolution with INT8 weights reads them. All orders of the three mean the same and give the same
# numbers. But only if the Transpose comes last is the convolution computed in INT8. With the Transpose before the
# Convert, or between Convert and Multiply, it is computed in float without a warning, while the next convolution, behind
# a FakeQuantize, is in INT8.
#
# A FakeQuantize to the very levels that the values already have mends it in every order. It changes no value, and is not
# in the compiled network any more.
#
# For maskmill: the native deformable convolution writes u8 with channels last, and the FakeQuantize behind it stays
# (`worker/model/inference/deformable.py`).
#
# Output seen:
#   openvino 2026.4.1
#   no Transpose                : u8 u8; with a FakeQuantize: u8 u8, 0 left
#   Convert, Multiply, Transpose: u8 u8; with a FakeQuantize: u8 u8, 0 left
#   Convert, Transpose, Multiply: f32 u8; with a FakeQuantize: u8 u8, 0 left
#   Transpose, Convert, Multiply: f32 u8; with a FakeQuantize: u8 u8, 0 left
#   largest difference of the answers: 0.0 % of the largest value
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

SIDE, CHANNELS, STEP = 16, 32, 0.02
LAST = ["Convert", "Multiply", "Transpose"]
MIDDLE = ["Convert", "Transpose", "Multiply"]
FIRST = ["Transpose", "Convert", "Multiply"]


def scalar(value):
    return op.constant(np.full((1, 1, 1, 1), value, np.float32))


def quantise(value, high):
    return op.fake_quantize(value, scalar(0), scalar(high), scalar(0), scalar(high), 256)


def convolution(value, inputs, rng):
    levels = op.constant(rng.integers(-127, 128, (64, inputs, 1, 1)).astype(np.int8))
    weights = op.multiply(op.convert(levels, "f32"), scalar(0.01))
    return op.convolution(value, weights, [1, 1], [0, 0], [0, 0], [1, 1])


STEPS = {
    "Convert": lambda value: op.convert(value, "f32"),
    "Multiply": lambda value: op.multiply(value, scalar(STEP)),
    "Transpose": lambda value: op.transpose(value, op.constant(np.array([0, 3, 1, 2]))),
}


def network(order, again):
    """Levels -> values in this order of steps, perhaps quantised again -> two convolutions in INT8."""
    rng = np.random.default_rng(0)
    levels = op.parameter([1, SIDE, SIDE, CHANNELS] if order else [1, CHANNELS, SIDE, SIDE], ov.Type.u8)
    value = levels
    for step in order or ["Convert", "Multiply"]:
        value = STEPS[step](value)
    if again:
        value = quantise(value, 255 * STEP)
    first = quantise(op.relu(convolution(value, CHANNELS, rng)), 50)
    return ov.Model([convolution(first, 64, rng)], [levels])


def compiled(order, again):
    return ov.Core().compile_model(network(order, again), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def facts(model):
    """Precisions of the inputs of the convolutions in order, and how many FakeQuantize are left."""
    found = [node.get_rt_info() for node in model.get_runtime_model().get_ordered_ops()]
    kinds = [(one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in found]
    precisions = [precision for kind, precision in kinds if kind == "Convolution"]
    return " ".join(precisions), sum(kind == "FakeQuantize" for kind, _ in kinds)


print("openvino", version("openvino"))
picture = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, CHANNELS)).astype(np.uint8)
seen, answers = {}, []
for order in ([], LAST, MIDDLE, FIRST):
    models = [compiled(order, again) for again in (False, True)]
    answers += [model(picture if order else picture.transpose(0, 3, 1, 2))[0] for model in models]
    (plain, _), (mended, left) = map(facts, models)
    seen[tuple(order)] = plain, mended, left
    print(f"{', '.join(order) or 'no Transpose':28}: {plain}; with a FakeQuantize: {mended}, {left} left")
off = max(float(np.abs(answer - answers[0]).max()) for answer in answers) / float(np.abs(answers[0]).max())
print(f"largest difference of the answers: {100 * off:.1f} % of the largest value")
as_described = (
    all(seen[tuple(order)] == ("u8 u8", "u8 u8", 0) for order in ([], LAST))
    and all(seen[tuple(order)] == ("f32 u8", "u8 u8", 0) for order in (MIDDLE, FIRST))
    and off < 0.01
)
sys.exit(0 if as_described else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
