#!/bin/sh
# OpenVINO 2026.4.1, CPU: a convolution to one channel takes as long as one to sixteen; in blocks it is faster.
#
# A 3 x 3 convolution of 64 channels that returns one channel, as networks for masks have at their end, has a sixteenth of
# the products of one that returns 16, and takes about as long: output channels are computed in groups that fill a register.
# Written as a convolution to 16 channels with stride 4, whose kernels of 6 x 6 hold the 3 x 3 weights at the place of each
# pixel of a block of 4 x 4, followed by DepthToSpace, it takes less than half of the time, with the same values but for
# rounding. On CPUs with shorter registers than AVX-512, the groups are of 8. OpenVINO does not choose that form by itself.
#
# For maskmill: such convolutions are replaced while a network is loaded (`worker/model/inference/one_channel.py`).
#
# Output seen (milliseconds, least of 20; they differ by machine):
#   openvino 2026.4.1
#   to 16 channels            :  49.0 ms
#   to one channel            :  49.9 ms
#   to one channel, in blocks :  18.4 ms
#   largest difference of values up to 3.2: 2.6e-06
#
# Needs Python 3.11 to 3.13 and a package index. Exits 0 while the behaviour is as described, else 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.3.4
cat > "$folder/show.py" <<'PYTHON'
import sys
import time
from importlib.metadata import version

import numpy as np
import openvino as ov
from openvino import opset13 as op

SIDE, CHANNELS, BLOCK, TURNS = 512, 64, 4, 20
random = np.random.default_rng(0)
ENTRY = op.constant(random.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / 8)
SIXTEEN = random.standard_normal((16, CHANNELS, 3, 3)).astype(np.float32) / 24


def convolution(value, weights, stride=1, pad=1):
    return op.convolution(value, op.constant(weights), [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])


def to_sixteen(value):
    return convolution(value, SIXTEEN)


def to_one(value):
    return convolution(value, SIXTEEN[:1])


def to_one_in_blocks(value):
    spread = np.zeros((BLOCK**2, CHANNELS, BLOCK + 2, BLOCK + 2), np.float32)
    for y in range(BLOCK):
        for x in range(BLOCK):
            spread[y * BLOCK + x, :, y : y + 3, x : x + 3] = SIXTEEN[0]
    return op.depth_to_space(convolution(value, spread, BLOCK), "blocks_first", BLOCK)


def compiled(last):
    # A layer in front, so that the map has the order of values that it has inside of a network.
    picture = op.parameter([1, CHANNELS, SIDE, SIDE], ov.Type.f32)
    inside = op.relu(op.convolution(picture, ENTRY, [1, 1], [0, 0], [0, 0], [1, 1]))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERF_COUNT": True,
    }
    return ov.Core().compile_model(ov.Model([last(inside)], [picture]), "CPU", settings).create_infer_request()


def milliseconds(request):
    """Of all that follows the layer in front."""
    done = [node for node in request.get_profiling_info() if node.node_type in {"Convolution", "DepthToSpace"}]
    return 1000 * sum(node.real_time.total_seconds() for node in done[1:])


print("openvino", version("openvino"))
picture = random.standard_normal((1, CHANNELS, SIDE, SIDE)).astype(np.float32)
requests = {
    "to 16 channels": compiled(to_sixteen),
    "to one channel": compiled(to_one),
    "to one channel, in blocks": compiled(to_one_in_blocks),
}
took, answers = {name: [] for name in requests}, {}
for _ in range(TURNS):
    for name, request in requests.items():
        answers[name] = request.infer([picture])[0]
        took[name].append(milliseconds(request))
sixteen, one, blocks = (min(times) for times in took.values())
for name, times in took.items():
    print(f"{name:26}: {min(times):5.1f} ms")
off = np.abs(answers["to one channel"] - answers["to one channel, in blocks"]).max()
largest = np.abs(answers["to one channel"]).max()
print(f"largest difference of values up to {largest:.1f}: {off:.1e}")
sys.exit(0 if one > 0.4 * sixteen and one > 1.8 * blocks and off < 1e-4 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
