#!/bin/sh
# OpenVINO 2026.4.1, CPU: a Convert to bf16 of what is bf16 already copies the tensor, unless its rank is above 6.
#
# With INFERENCE_PRECISION_HINT=bf16 the plugin computes f32 layers in bf16. A Convert to bf16 behind one (here before a
# Gather, in practice before an operation of an extension that takes bf16) has nothing to do then. Up to rank 6 the
# compiler of element-wise operations takes it first, and runs a kernel that reads and writes every value. The same
# Convert behind a Reshape to rank 7, which costs nothing, is dropped.
#
# For maskmill: tokens reach the native operations through such a Reshape (`worker/model/inference/native/levels.py`).
#
# Output seen:
#   openvino 2026.4.1
#   rank 3: FullyConnected bf16, Subgraph bf16, Gather bf16
#   rank 6: FullyConnected bf16, Subgraph bf16, Gather bf16
#   rank 7: FullyConnected bf16, Gather bf16
#
# Needs a CPU with AVX-512, Python 3.11 to 3.13 and a package index. Exits 0 while the behaviour is as described, else 1.
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

TOKENS, CHANNELS = 4096, 96


def graph(rank):
    tokens = op.parameter([1, TOKENS, CHANNELS], ov.Type.f32)
    weights = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    value = op.matmul(tokens, op.constant(weights), False, True)
    if rank > 3:
        value = op.reshape(value, op.constant(np.array([1] * (rank - 2) + [TOKENS, CHANNELS])), False)
    order = op.constant(np.arange(TOKENS)[::-1].copy())
    return ov.Model([op.gather(op.convert(value, "bf16"), order, op.constant(rank - 2))], [tokens])


def executed(rank):
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERF_COUNT": True}
    request = ov.Core().compile_model(graph(rank), "CPU", settings).create_infer_request()
    request.infer({0: np.ones((1, TOKENS, CHANNELS), np.float32)})
    done = ov.ProfilingInfo.Status.EXECUTED
    nodes = [node for node in request.get_profiling_info() if node.status == done and node.node_type != "Reorder"]
    return [f"{node.node_type} {node.exec_type.rsplit('_', 1)[1]}" for node in nodes]


print("openvino", version("openvino"))
found = {rank: executed(rank) for rank in (3, 6, 7)}
for rank, nodes in found.items():
    print(f"rank {rank}: {', '.join(nodes)}")
copying = [any(node.startswith("Subgraph") for node in nodes) for nodes in found.values()]
sys.exit(0 if copying == [True, True, False] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
