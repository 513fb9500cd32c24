#!/bin/sh
# OpenVINO 2026.4.1, CPU: bilinear upsampling of one channel is several times slower than the same as a convolution.
#
# Interpolate doubles a map of 512 x 512 with one channel, as networks for masks do at their end: 14 to 20 ns per value.
# Written as a transposed convolution with 4 x 4 fixed weights, behind one repeated pixel at each border, it takes a
# quarter to a sixth of the time, with the same values but for rounding. OpenVINO does not choose that form by itself.
#
# For maskmill: such maps are replaced while a network is loaded (`worker/model/inference/upsampling.py`).
#
# Output seen (milliseconds, least of 20; they differ by machine):
#   openvino 2026.4.1
#   Interpolate           :  20.3 ms
#   transposed convolution:   3.5 ms
#   largest difference of values up to 5.0: 4.8e-07
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

SIDE, TURNS = 512, 20
BORDER = np.array([0, 0, 1, 1])
TAPS = np.array([0.25, 0.75, 0.75, 0.25], np.float32)


def interpolate(value):
    factors, axes = np.array([2, 2], np.float32), np.array([2, 3])
    return op.interpolate(
        value, factors, "linear_onnx", "scales", coordinate_transformation_mode="half_pixel", axes=axes
    )


def transposed_convolution(value):
    padded = op.pad(value, op.constant(BORDER), op.constant(BORDER), "edge")
    taps = op.constant(np.outer(TAPS, TAPS)[None, None])
    return op.convolution_backprop_data(padded, taps, [2, 2], pads_begin=[3, 3], pads_end=[3, 3])


def compiled(upsample):
    picture = op.parameter([1, 1, SIDE, SIDE], ov.Type.f32)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return ov.Core().compile_model(ov.Model([upsample(picture)], [picture]), "CPU", settings)


print("openvino", version("openvino"))
picture = np.random.default_rng(0).standard_normal((1, 1, SIDE, SIDE)).astype(np.float32)
networks = {
    "Interpolate": compiled(interpolate),
    "transposed convolution": compiled(transposed_convolution),
}
took, answers = {name: [] for name in networks}, {}
for _ in range(TURNS):
    for name, network in networks.items():
        start = time.perf_counter()
        answers[name] = network(picture)[0]
        took[name].append(1000 * (time.perf_counter() - start))
least = {name: min(times) for name, times in took.items()}
for name, milliseconds in least.items():
    print(f"{name:22}: {milliseconds:5.1f} ms")
interpolated, transposed = least.values()
off = np.abs(answers["Interpolate"] - answers["transposed convolution"]).max()
print(f"largest difference of values up to {np.abs(picture).max():.1f}: {off:.1e}")
sys.exit(0 if interpolated > 2.5 * transposed and off < 1e-5 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
