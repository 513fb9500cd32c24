"""Export the PyTorch twin as ONNX with native deformable convolutions, for ONNX Runtime. Runs in a child process only.

ONNX has `DeformConv` since opset 19, and ONNX Runtime runs it on CPUs since 2026. PyTorch's exporter does not know it,
so this module registers a custom operation that the exporter translates.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from worker.bench.harness.requests import NetworkRequest
from worker.bench.prepare import arrays

OPSET = 19
_NAME = "maskmill_bench::deform_conv"


def export(request: NetworkRequest) -> dict[str, str | int]:
    """Write the file `onnx` from `checkpoint`, tracing with the picture `normalised`; return file and opset.

    Raises:
        ImportError: PyTorch or the onnx package is missing.
        RuntimeError: the exporter failed.
    """
    torch: Any = importlib.import_module("torch")
    twin: Any = importlib.import_module("worker.bench.birefnet_torch")
    _register(torch, twin)
    state = twin.weights(arrays(request["checkpoint"])[0])
    image = torch.from_numpy(np.load(request["normalised"]))

    network = torch.nn.Module()
    network.forward = lambda x: twin.forward(state, x, deform=torch.ops.maskmill_bench.deform_conv)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that sizes become constants, which a static graph needs
        network(image)  # fill the caches of constants outside the trace
        torch.onnx.export(
            network,
            (image,),
            request["onnx"],
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
        )
    return {"onnx": request["onnx"], "opset": OPSET}


def _register(torch: Any, twin: Any) -> None:
    library = torch.library.Library("maskmill_bench", "DEF")
    library.define("deform_conv(Tensor x, Tensor offsets, Tensor modulator, Tensor weight) -> Tensor")
    library.impl("deform_conv", twin.deform_conv, "CompositeExplicitAutograd")
    torch.onnx.register_custom_op_symbolic(_NAME, _symbolic(torch), OPSET)
    _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []
"""Kept, because an operation exists only as long as the object that registered it."""


def _symbolic(torch: Any) -> Any:
    def translate(graph: Any, x: Any, offsets: Any, modulator: Any, weight: Any) -> Any:
        outputs, _, kernel, _ = weight.type().sizes()
        count, _, height, width = x.type().sizes()
        no_bias = graph.op("Constant", value_t=torch.zeros(outputs))
        y = graph.op(
            "DeformConv",
            x,
            weight,
            offsets,
            no_bias,
            modulator,
            kernel_shape_i=[kernel, kernel],
            pads_i=[kernel // 2] * 4,
            strides_i=[1, 1],
            dilations_i=[1, 1],
            group_i=1,
            offset_group_i=1,
        )
        y.setType(x.type().with_sizes([count, outputs, height, width]))
        return y

    return translate
