"""The eager twin as an ONNX file with native deformable convolutions, for ONNX Runtime. Runs in a child process only.

ONNX has `DeformConv` since opset 19 and ONNX Runtime runs it on CPUs since 2026; PyTorch's exporter does not know it,
so it is registered here as an operation of its own that the exporter translates.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from worker.bench.prepare import arrays

OPSET = 19
_NAME = "maskmill_bench::deform_conv"


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write `request["onnx"]` from `checkpoint` (or None) and the picture `normalised`.

    Raises:
        ImportError: PyTorch or the onnx package is missing.
        RuntimeError: the exporter gave up.
    """
    torch: Any = importlib.import_module("torch")
    twin: Any = importlib.import_module("worker.bench.birefnet_torch")
    _register(torch, twin)
    state = twin.weights(arrays(request["checkpoint"])[0])
    image = torch.from_numpy(np.load(request["normalised"]))

    network = torch.nn.Module()
    network.forward = lambda x: twin.forward(state, x, deform=torch.ops.maskmill_bench.deform_conv)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, which is what a static graph wants
        network(image)  # fills the caches of constants outside of the trace
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
"""An operation lives as long as the object that registered it."""


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
