"""Small ONNX networks with every form of output that published networks have, and the masks that they mean.

All share one core, two convolutions with fixed weights that return logits. Each form turns them into its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Node = onnx.NodeProto
_rng = np.random.default_rng(11)
_WEIGHTS = {
    "w1": _rng.normal(size=(8, 3, 3, 3)) * 0.35,
    "w2": _rng.normal(size=(1, 8, 1, 1)) * 2.0,
    "b2": np.array([-1.0]),
}


def node(kind: str, inputs: str, output: str, **attributes: object) -> Node:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def core(image: str = "image", *, stride: int = 1) -> list[Node]:
    """`image` -> `logits` [1,1,H,W]; with stride 2 at half the size."""
    return [
        node("Conv", f"{image} w1", "hidden", pads=[1, 1, 1, 1], strides=[stride, stride]),
        node("Relu", "hidden", "active"),
        node("Conv", "active w2 b2", "logits"),
    ]


CONSTANTS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "quarter": np.float32(0.25),
    "half": np.float32(0.5),
    "axis1": np.array([1], np.int64),
    "axis3": np.array([3], np.int64),
    "pair": np.array([0, 1], np.float32).reshape(1, 2, 1, 1),
    "double": np.array([1, 1, 2, 2], np.float32),
    "plane": np.array([SIZE, SIZE], np.int64),
}

FORMS: dict[str, tuple[list[Node], list[object]]] = {
    "logits": ([node("Identity", "logits", "out")], [1, 1, "h", "w"]),
    "sigmoid": ([node("Sigmoid", "logits", "out")], [1, 1, "h", "w"]),
    "sigmoid, clip": ([node("Sigmoid", "logits", "p"), node("Clip", "p zero one", "out")], [1, 1, "h", "w"]),
    "sigmoid, [1,H,W]": ([node("Sigmoid", "logits", "p"), node("Squeeze", "p axis1", "out")], [1, "h", "w"]),
    "sigmoid, [H,W]": ([node("Sigmoid", "logits", "p"), node("Reshape", "p plane", "out")], [SIZE, SIZE]),
    "sigmoid, NHWC": (
        [node("Sigmoid", "logits", "p"), node("Transpose", "p", "out", perm=[0, 2, 3, 1])],
        [1, "h", "w", 1],
    ),
    "one minus": (
        [node("Neg", "logits", "n"), node("Sigmoid", "n", "p"), node("Sub", "one p", "out")],
        [1, 1, "h", "w"],
    ),
    "sigmoid written out": (
        [
            node("Neg", "logits", "n"),
            node("Exp", "n", "e"),
            node("Add", "e one", "s"),
            node("Div", "one s", "out"),
        ],
        [1, 1, "h", "w"],
    ),
    "tanh": (
        [
            node("Mul", "logits half", "l"),
            node("Tanh", "l", "t"),
            node("Mul", "t half", "th"),
            node("Add", "th half", "out"),
        ],
        [1, 1, "h", "w"],
    ),
    "softmax of two": ([node("Mul", "logits pair", "two"), node("Softmax", "two", "out", axis=1)], [1, 2, "h", "w"]),
    "softmax of two, NHWC": (
        [
            node("Mul", "logits pair", "two"),
            node("Transpose", "two", "last", perm=[0, 2, 3, 1]),
            node("Softmax", "last", "out", axis=3),
        ],
        [1, "h", "w", 2],
    ),
    "two logits": ([node("Mul", "logits pair", "out")], [1, 2, "h", "w"]),
    "hard sigmoid": ([node("HardSigmoid", "logits", "out", alpha=0.2, beta=0.5)], [1, 1, "h", "w"]),
    "clip without sigmoid": (
        [node("Mul", "logits quarter", "a"), node("Add", "a half", "b"), node("Clip", "b zero one", "out")],
        [1, 1, "h", "w"],
    ),
    "min-max": (
        [
            node("Sigmoid", "logits", "p"),
            node("ReduceMin", "logits", "low", keepdims=0),
            node("ReduceMax", "logits", "high", keepdims=0),
            node("Sub", "logits low", "above"),
            node("Sub", "high low", "range"),
            node("Div", "above range", "out"),
        ],
        [1, 1, "h", "w"],
    ),
}
"""Name -> nodes behind `logits`, and the shape of the output."""


def meaning(form: str, logits: np.ndarray) -> np.ndarray:
    """The probabilities that a form means, f64 in 0..1."""
    if form == "hard sigmoid":
        return np.clip(0.2 * logits + 0.5, 0, 1)
    if form == "clip without sigmoid":
        return np.clip(0.25 * logits + 0.5, 0, 1)
    if form == "min-max":
        return (logits - logits.min()) / np.ptp(logits)
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def network(
    nodes: Sequence[Node],
    outputs: dict[str, list[object]],
    *,
    image: Sequence[object] = (1, 3, SIZE, SIZE),
    half: bool = False,
    opset: int = 17,
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """Build a network with the input `image`. `half` stores the weights of the core in 16 bits."""
    kind = np.float16 if half else np.float32
    constants = {name: value.astype(kind) for name, value in (_WEIGHTS | (weights or {})).items()} | CONSTANTS
    used = {name for one in nodes for name in one.input}
    sides = dict(zip("hw", image[2:], strict=False)) if image[1] == 3 else dict(zip("hw", image[1:], strict=False))
    graph = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(image))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [sides.get(side, side) for side in shape])
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def of_form(form: str, *, image: Sequence[object] = (1, 3, SIZE, SIZE)) -> onnx.ModelProto:
    """The core with one of `FORMS` behind it."""
    nodes, shape = FORMS[form]
    return network([*core(), *nodes], {"out": shape}, image=image)


CONSTANT = 226.0
"""Value of the constant channel of `with_constant_channel`."""


def with_constant_channel() -> onnx.ModelProto:
    """A network whose last convolution has an input channel of 226 everywhere, and a bias that takes it away again.

    Rounding the weights of that channel to eight bits moves the logits by more than they vary.
    """
    rng = np.random.default_rng(3)
    first = np.concatenate([_WEIGHTS["w1"], np.zeros((1, 3, 3, 3))])
    heavy = 0.5 + rng.random((1, 1, 3, 3)) * 0.25
    last = np.concatenate([np.repeat(_WEIGHTS["w2"], 9).reshape(1, 8, 3, 3) / 9, heavy], axis=1)
    weights = {
        "w1": first,
        "b1": np.array([0.0] * 8 + [CONSTANT]),
        "w2": last,
        "b2": np.array([1.0 - CONSTANT * heavy.sum()]),
    }
    nodes = [
        node("Conv", "image w1 b1", "hidden", pads=[1, 1, 1, 1]),
        node("Relu", "hidden", "active"),
        node("Conv", "active w2 b2", "logits", pads=[1, 1, 1, 1]),
        node("Sigmoid", "logits", "out"),
    ]
    return network(nodes, {"out": [1, 1, "h", "w"]}, weights=weights)


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def logits(picture: np.ndarray, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> np.ndarray:
    """What the core returns for a picture u8 [H,W,3], from ONNX Runtime: f32 [H,W]."""
    height, width = picture.shape[:2]
    model = network(core(), {"logits": [1, 1, "h", "w"]}, image=(1, 3, height, width))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = (picture / 255 - mean) / np.array(std)
    return session.run(None, {"image": values.astype(np.float32).transpose(2, 0, 1)[None]})[0][0, 0]
