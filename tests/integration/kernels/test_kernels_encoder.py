"""The native layer norm and window attention inside OpenVINO, compared with OpenVINO's own, on the encoder of BiRefNet.

The network has stand-in weights and is quantised as NNCF does it, at the values that the native operations need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.birefnet_weights import stand_in_image, stand_in_state_dict
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL
from worker.kernels.library import Library
from worker.model.inference.native import operations, replacements
from worker.model.inference.native.levels import only_follower
from worker.model.inference.native.replacements import Replacements
from worker.model.inference.runtime import core, ov

pytestmark = pytest.mark.usefixtures("library")

SIZE = 128
ATTENTIONS, NORMS = 24, 64
ops = ov.opset13

# Mean difference of the logits, whose standard deviation is 1.8. A level that is rounded the other way is passed on by
# all layers behind it: an input that differs by 1e-5 of its value changes them by 0.03 in f32, and 0.05 in bf16.
LIMIT = {"f32": 0.06, "bf16": 0.12}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return checkpoint.validate(stand_in_state_dict(), "stand-in")


def quantised(weights: dict[str, np.ndarray], *, levels: int = 256, high: float = 127.0, channels: bool = False) -> Any:
    """Build the network with queries, keys, mixtures and norms quantised, as NNCF does it."""
    model = build(weights, InputSize.square(SIZE), ALL)
    for node in list(model.get_ordered_ops()):
        if node.get_type_name() == "Softmax":
            scores = node
            while scores.get_type_name() != "MatMul":
                scores = scores.input_value(0).get_node()
            for port, step in ((0, 0.02), (1, 0.04)):
                scores.input(port).replace_source_output(fake(scores.input_value(port), step, levels, high, channels))
            behind(only_follower(node), lambda value: fake(value, 0.03, levels, high, channels))
        elif node.get_type_name() == "MVN":
            last = only_follower(only_follower(node))
            if only_follower(last) is not None:
                behind(last, lambda value: fake(value, 0.04, levels, high, channels))
    model.validate_nodes_and_infer_types()
    return model


def fake(value: Any, step: float, levels: int, high: float, channels: bool) -> Any:
    shape = value.get_shape()[-1:] if channels else ()
    ends = [ops.constant(np.full(shape, end * step, np.float32)) for end in (-120, high + 8)]
    return ops.fake_quantize(value, *ends, *ends, levels).output(0)


def quantised_end(node: Any) -> Any | None:
    """Return what the next linear layer reads, behind a softmax or a norm; None if there is none."""
    while (reader := only_follower(node)) is not None:
        if reader.get_type_name() == "MatMul" and node.get_type_name() != "Softmax":
            return node.output(0)
        node = reader
    return None


def behind(node: Any, insert: Callable[[Any], Any]) -> None:
    """Put an operation behind a node, for all its readers."""
    readers = list(node.output(0).get_target_inputs())
    made = insert(node.output(0))
    for reader in readers:
        reader.replace_source_output(made)


def replaced(model: Any, floats: str = "f32", **changes: Any) -> Replacements:
    return replacements.replace(model, **({"mode": "auto", "int8": True, "floats": floats} | changes))


def run(model: Any, floats: str, *, streams: int = 1) -> np.ndarray:
    properties = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams, "INFERENCE_PRECISION_HINT": floats}
    network = core().compile_model(model, "CPU", properties)
    requests = [network.create_infer_request() for _ in range(streams)]
    for request in requests:
        request.start_async({0: stand_in_image(SIZE)})
    for request in requests:
        request.wait()
    found = [request.get_output_tensor(0).data.copy() for request in requests]
    assert all(np.array_equal(one, found[0]) for one in found)
    return found[0]


def supported() -> set[str]:
    """Operations of the encoder for which this CPU has kernels; without AVX-512, all run on OpenVINO's own."""
    native = operations.installed()
    assert isinstance(native, Library)
    kernels = {"layer_norm": native.layer_norm(), "window_attention": native.attention("f32")}
    return {name for name, kernel in kernels.items() if kernel is not None}


@pytest.mark.parametrize("floats", LIMIT)
def test_the_logits_are_those_of_openvino(weights, floats):
    want = run(quantised(weights), floats)
    model = quantised(weights)

    done = replaced(model, floats)
    got = run(model, floats, streams=2)

    kinds = [node.get_type_name() for node in model.get_ops()]
    assert done.window_attention.replaced + done.window_attention.left == ATTENTIONS
    assert done.layer_norm.replaced + done.layer_norm.left == NORMS
    if "window_attention" in supported():
        assert "Softmax" not in kinds and kinds.count("WindowAttention") == ATTENTIONS
    if "layer_norm" in supported():
        assert done.layer_norm.replaced == kinds.count("LayerNorm") >= 2 * ATTENTIONS
    assert abs(got - want).mean() <= LIMIT[floats]


@pytest.mark.parametrize(
    ("kind", "count"), [("Softmax", 2), ("MVN", 3)], ids=["unmasked and masked windows", "the norms before them"]
)
def test_levels_of_one_layer_are_those_of_openvino(weights, kind, count):
    """The two differ where a value lies between two levels. The first layers have hardly any other before them."""
    step, operation = (0.03, "window_attention") if kind == "Softmax" else (0.04, "layer_norm")
    for number in range(count):
        found = []
        for mode in ("off", operation):
            model = quantised(weights)
            ends = [
                end for one in model.get_ordered_ops() if one.get_type_name() == kind and (end := quantised_end(one))
            ]
            part = ov.Model([ops.result(ends[number])], model.get_parameters(), "part")
            done = replaced(part, mode=mode)
            assert (done.window_attention.replaced + done.layer_norm.replaced > 0) == (mode in supported())
            found.append(run(part, "f32"))
        distance = abs(found[1] - found[0]) / step
        assert (distance > 0.5).mean() <= 0.005


@pytest.mark.parametrize("operation", ["deformable_convolution", "layer_norm", "window_attention"])
def test_each_operation_can_run_alone(weights, operation):
    model = quantised(weights)

    done = replaced(model, mode=operation)

    on_native = {name for name, text in done.describe().items() if " of " in text}
    assert on_native == {operation} & {"deformable_convolution", *supported()}


@pytest.mark.parametrize("changes", [{"mode": "off"}, {"int8": False}], ids=["off", "not quantised"])
def test_the_encoder_is_left_alone(weights, changes):
    model = quantised(weights)

    done = replaced(model, **changes)

    assert done.window_attention.left == ATTENTIONS and done.layer_norm.left == NORMS
    assert not {"WindowAttention", "LayerNorm"} & {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize(
    "form", [{"levels": 255}, {"high": 127.4}, {"channels": True}], ids=["255", "no zero", "channels"]
)
def test_other_quantisations_are_left_alone(weights, form):
    model = quantised(weights, **form)

    done = replaced(model)

    assert done.window_attention.replaced == 0
    assert done.layer_norm.replaced == 0


def test_windows_in_another_order_are_left_alone(weights):
    """One layer whose second gather exchanges two tokens: as good as any order to OpenVINO, not to the kernels."""
    model = quantised(weights)
    softmax = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Softmax")
    node = softmax
    while node.get_type_name() != "Gather":
        node = only_follower(node)
    index = node.input_value(1).get_node()
    order = index.input_value(0).get_node().get_data().copy()
    order[[3, 4]] = order[[4, 3]]
    index.input(0).replace_source_output(ops.constant(order).output(0))
    want = run(model, "f32")

    done = replaced(model)

    assert done.window_attention.replaced == (ATTENTIONS - 1 if "window_attention" in supported() else 0)
    assert abs(run(model, "f32") - want).mean() <= LIMIT["f32"]


def test_a_negative_scale_is_left_alone(weights):
    """The scores of one layer are of the other sign: nothing is wrong with it, but the kernels do not support it."""
    model = quantised(weights)
    scores = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Softmax")
    while scores.get_type_name() != "MatMul":
        scores = scores.input_value(0).get_node()
    scale = scores.input_value(0).get_node().input_value(0).get_node()
    scale.input(1).replace_source_output(ops.constant(np.float32(-0.2)).output(0))

    done = replaced(model)

    assert scale.get_type_name() == "Multiply"
    assert done.window_attention.replaced == (ATTENTIONS - 1 if "window_attention" in supported() else 0)


def test_without_vnni_the_encoder_runs_on_openvino(weights, monkeypatch):
    monkeypatch.setattr(Library, "attention", lambda self, floats: None)
    monkeypatch.setattr(Library, "layer_norm", lambda self: None)
    model = quantised(weights)

    done = replaced(model)

    assert done.window_attention.describe() == f"{ATTENTIONS} on OpenVINO's own kernel"
    assert done.layer_norm.replaced == 0 and done.notes == ()
