#!/bin/sh
# NNCF 3.4.0 with OpenVINO 2026.4.1: post-training quantisation ends with a KeyError if a convolution's bias is a Gather
# of a constant.
#
# The graph is Convolution -> Add(Gather(constant)) -> Relu, for a bias that differs between rows and stores each distinct
# row once. `nncf.quantize` raises KeyError with the name of the Gather, which it looks up among the quantisers it placed.
# With `model_type=ModelType.TRANSFORMER` the same graph is quantised; so it is with the constant written out in full.
#
# For maskmill: quantise with the full constant and make it compact afterwards (`worker/convert/int8`); an error of NNCF
# leaves the float variant in place and is reported.
#
# Output seen:
#   nncf 3.4.0, openvino 2026.4.1
#   bias in full: quantised, 1 FakeQuantize
#   bias gathered: KeyError that names the Gather
#   bias gathered, as a transformer: quantised, 1 FakeQuantize
#
# Needs Python 3.11 to 3.13 and a package index. Exits 0 while the behaviour is as described, else 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check nncf==3.4.0 openvino==2026.4.1 numpy==2.3.4
cat > "$folder/show.py" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import openvino as ov
from openvino import opset13 as op

import nncf

ROWS = np.r_[0, np.ones(14, int), 2].astype(np.int32)
DISTINCT = np.random.default_rng(1).normal(size=(1, 4, 3, 1)).astype(np.float32)


def network(gathered):
    """A convolution with a bias that is one row at the top, one at the bottom and one between."""
    image = op.parameter([1, 3, 16, 16], ov.Type.f32)
    weights = op.constant(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32))
    value = op.convolution(image, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    bias = op.constant(DISTINCT[:, :, ROWS])
    if gathered:
        bias = op.gather(op.constant(DISTINCT), op.constant(ROWS), op.constant(np.int32(2)))
        bias.set_friendly_name("gathered_bias")
    return ov.Model([op.result(op.relu(op.add(value, bias)))], [image], "net")


def quantised(gathered, **options):
    pictures = nncf.Dataset([np.zeros((1, 3, 16, 16), np.float32)])
    try:
        model = nncf.quantize(network(gathered), pictures, subset_size=1, **options)
    except KeyError as error:
        return "KeyError that names the Gather" if "gathered_bias" in str(error) else f"KeyError {error}"
    return f"quantised, {sum(node.get_type_name() == 'FakeQuantize' for node in model.get_ops())} FakeQuantize"


lines = [
    f"nncf {version('nncf')}, openvino {version('openvino').split('-')[0]}",
    f"bias in full: {quantised(False)}",
    f"bias gathered: {quantised(True)}",
    f"bias gathered, as a transformer: {quantised(True, model_type=nncf.ModelType.TRANSFORMER)}",
]
print("\n".join(lines))
sys.exit(lines[2] != "bias gathered: KeyError that names the Gather" or any("quantised" not in lines[i] for i in (1, 3)))
PYTHON
"$folder/venv/bin/python" "$folder/show.py" 2>/dev/null
