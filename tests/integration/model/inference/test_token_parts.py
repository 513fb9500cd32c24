"""Wide linear layers on tokens, computed in parts: the same values, a smaller buffer, and others left as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.model.inference import token_parts
from worker.model.inference.runtime import core, ov

ops = ov.opset13
TOKENS, CHANNELS, OUTPUTS = 2048, 32, 256  # 2 MiB of sums
HIGH = 8.0
STEP = 2 * HIGH / 255


def layer(x: Any, outputs: int, *, gelu: bool = True, reader: str = "quantised") -> Any:
    """Return a linear layer in INT8 form, as NNCF writes it."""
    random = np.random.default_rng(outputs)
    channels = x.get_output_shape(0)[-1]
    stored = random.integers(-127, 128, (outputs, channels)).astype(np.int8)
    scale = ops.constant(np.full((outputs, 1), 1 / 127, np.float32))
    y = ops.matmul(x, ops.multiply(ops.convert(ops.constant(stored), "f32"), scale), False, True)
    y = ops.add(y, ops.constant(random.normal(size=(1, 1, outputs)).astype(np.float32)))
    y = ops.gelu(y, "erf") if gelu else y
    return quantised(y, HIGH) if reader == "quantised" else ops.relu(y)


def quantised(x: Any, high: float) -> Any:
    low, most = (ops.constant(np.float32(limit)) for limit in (-high, high))
    return ops.fake_quantize(x, low, most, low, most, 256)


def network(*widths: int, tokens: int = TOKENS, batch: int = 1, **form: Any) -> Any:
    """Return a network of linear layers in sequence."""
    value = ops.parameter([batch, tokens, CHANNELS], ov.Type.f32)
    x = quantised(value, 4.0)
    for outputs in widths:
        x = layer(x, outputs, **form)
    return ov.Model([ops.result(ops.relu(x))], [value])


def products(model: Any) -> list[list[int]]:
    return sorted(list(node.get_output_shape(0)) for node in model.get_ops() if node.get_type_name() == "MatMul")


def answer(model: Any, tokens: np.ndarray) -> np.ndarray:
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(tokens)[0]


@pytest.mark.parametrize("gelu", [True, False])
def test_the_levels_are_the_same(gelu):
    tokens = np.random.default_rng(3).standard_normal((1, TOKENS, CHANNELS)).astype(np.float32)
    whole, parts = network(OUTPUTS, gelu=gelu), network(OUTPUTS, gelu=gelu)

    assert token_parts.replace(parts) == 1

    got, want = (answer(model, tokens) / STEP for model in (parts, whole))
    assert np.unique(np.rint(got)).size > 50
    # Nothing quantised reads the levels here, so they become values again, which differ by rounding.
    assert np.allclose(got, want, rtol=0, atol=1e-3)


def test_the_sums_of_a_part_stay_within_an_eighth_of_the_largest():
    tokens, outputs = 1 << 14, 512  # 32 MiB of sums
    model = network(outputs, outputs // 4, outputs // 16, tokens=tokens)

    assert token_parts.replace(model) == 2

    sums = [4 * shape[1] * shape[2] for shape in products(model)]
    assert max(sums) == 4 * tokens * outputs // token_parts.PARTS
    assert len(sums) == 8 + 2 + 1, "a layer of a sixteenth stays whole"


@pytest.mark.parametrize(
    "form",
    [{"tokens": TOKENS // 4}, {"tokens": TOKENS + 1}, {"batch": 2}, {"reader": "float"}],
    ids=["small", "odd", "batch", "float output"],
)
def test_other_layers_stay_whole(form):
    model = network(OUTPUTS, **form)

    assert token_parts.replace(model) == 0
    assert len(products(model)) == 1


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2"}, True), ({"avx512f", "avx512_vnni"}, False), ({"avx2", "avx_vnni"}, False)]
)
def test_only_cpus_without_vnni_have_the_buffer(flags, expected):
    assert token_parts.has_buffer(flags) is expected
