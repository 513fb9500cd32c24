"""The peer in PyTorch computes what ONNX Runtime computes from the same file.

PyTorch is not a dependency of this project: install it (`pip install torch`) to run these.
"""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import onnx_networks
from support.onnx_networks import node

torch = importlib.import_module("torch")
peer = importlib.import_module("worker.bench.peers.onnx_in_pytorch")


def masks(path, output=""):
    image = np.random.default_rng(3).normal(size=(1, 3, 64, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    (expected,) = session.run([output or session.get_outputs()[0].name], {session.get_inputs()[0].name: image})
    with torch.inference_mode():
        return expected, peer.load(str(path), (64, 64), output)(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("form", ["logits", "sigmoid"])
def test_the_peer_computes_the_same(form, tmp_path):
    expected, found = masks(onnx_networks.save(onnx_networks.of_form(form), tmp_path / "net.onnx"))

    np.testing.assert_allclose(found, expected, atol=1e-5)


def size_of_the_image(opset: int) -> list[onnx.NodeProto]:
    """`image` -> `size`, side by side, as exports from PyTorch compute it."""
    nodes = [node("Shape", "image", "shape")]
    for place in range(4):
        nodes.append(node("Gather", f"shape place{place}", f"side{place}"))
        axes = {"axes": [0]} if opset < 13 else {}
        nodes.append(node("Unsqueeze", f"side{place}" if axes else f"side{place} place0s", f"wide{place}", **axes))
    return [*nodes, node("Concat", "wide0 wide1 wide2 wide3", "size", axis=0)]


@pytest.mark.parametrize("corners", ["half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("opset", [11, 13])
def test_pooling_up_and_resizing_to_a_size_that_the_graph_computes(corners, opset, tmp_path):
    resize = {"mode": "linear", "coordinate_transformation_mode": corners}
    nodes = [
        node("Relu", "image", "active"),
        node("MaxPool", "active", "small", kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1),
        *size_of_the_image(opset),
        node("Resize", "small nothing nothing size", "large", **resize),
        node("Concat", "large image", "joined", axis=1),
        node("Sigmoid", "joined", "out"),
    ]
    constants = {f"place{place}": np.array(place) for place in range(4)}
    constants |= {"place0s": np.array([0]), "nothing": np.array([], np.float32)}
    path = save(nodes, [1, 3, "h", "w"], 6, tmp_path, opset=opset, constants=constants)

    expected, found = masks(path)

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unknown_operator_is_named(tmp_path):
    path = save([node("Erf", "image", "out")], [1, 3, 64, 64], 3, tmp_path)

    with pytest.raises(ValueError, match="the operator Erf is not known"):
        peer.load(str(path), (64, 64), "")


def save(nodes, shape, channels, folder, *, opset=13, constants=None):
    """Write a network from `image` of this shape to `out`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, *shape[2:]])],
        [numpy_helper.from_array(values, name) for name, values in (constants or {}).items()],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path
