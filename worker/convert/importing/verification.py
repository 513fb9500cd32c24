"""Compare the masks of a bundle with those that another runtime computes from the published file.

The other side shares nothing with the engine: ONNX Runtime runs the file as published, and NumPy prepares its input
and finishes its output. For a file that is not ONNX, OpenVINO runs it as published, which checks all but its own
arithmetic.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError
from worker.convert.importing.output_kind import LEAST_CONTRAST
from worker.convert.importing.pictures import Pictures
from worker.convert.importing.reading import PublishedNetwork, read
from worker.convert.importing.request import Verification
from worker.convert.importing.shaping import Floats, Shaped
from worker.convert.network_input import network_input
from worker.model.format.variant import Variant
from worker.model.inference.facts import NetworkFacts, OutputActivation, OutputStretch
from worker.model.inference.graph import prepare
from worker.model.inference.runtime import core, version

MOST_LEVELS = 1
"""Largest accepted difference at any pixel, in grey levels: two values on either side of a rounding edge."""

_TINY = 1e-6
_ERRORS_ONLY = 3
"""Log level of ONNX Runtime."""

Levels = npt.NDArray[np.uint8]
Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
"""Runs the published file on one picture f32 in its own layout, and returns the chosen output."""


def verify(
    network: PublishedNetwork, shaped: Shaped, facts: NetworkFacts, variant: Variant, pictures: Pictures
) -> Verification:
    """Compare the masks of a variant with those of the published file.

    Raises:
        BundleError: they differ by more than `MOST_LEVELS`.
    """
    try:
        reference, run = _onnx_runtime(network, shaped) if network.frame else _openvino(network, shaped)
    except _NotRun as error:
        return Verification("", 0, pictures.source, None, str(error))
    masks = bundle_masks(variant, pictures)
    raw = [shaped.form.in_array(run(published_input(picture, shaped, facts))) for picture in pictures.tensors]
    _check_activation(raw, facts, reference)
    furthest = 0
    for mask, values in zip(masks, raw, strict=True):
        expected = expected_levels(values, facts)
        furthest = max(furthest, int(np.abs(mask.astype(int) - expected.astype(int)).max()))
    if furthest > MOST_LEVELS:
        raise BundleError(_difference(furthest, reference, network))
    return Verification(reference, len(masks), pictures.source, furthest)


def _difference(furthest: int, reference: str, network: PublishedNetwork) -> str:
    remedy = "export the network again with another opset, and report this"
    if network.frame and network.frame.is_quantised:
        remedy = (
            "the file is quantised, and every runtime rounds in its own way; import the float file it was made from"
        )
    return (
        f"the masks of the imported network differ by {furthest} of 255 grey levels from those of {reference}, more "
        f"than {MOST_LEVELS}; OpenVINO {version()} computes this file differently. Nothing was written: {remedy}"
    )


def bundle_masks(variant: Variant, pictures: Pictures) -> list[Levels]:
    """Return the masks of a variant, u8 `[H, W]` each, with its float part in f32."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    compiled = core().compile_model(prepare(variant).model, "CPU", settings)
    return [compiled(picture[np.newaxis])[0][0, 0].copy() for picture in pictures.tensors]


def _check_activation(raw: Sequence[Floats], facts: NetworkFacts, reference: str) -> None:
    """Check once more, with the values of the other runtime, that no sigmoid is put on probabilities.

    Raises:
        BundleError: one is. Both sides of the comparison would apply it, so the comparison would not find it.
    """
    low, high = min(float(values.min()) for values in raw), max(float(values.max()) for values in raw)
    is_probability = low >= 0 and high <= 1 and high - low > LEAST_CONTRAST
    if is_probability and facts.output_activation is OutputActivation.LOGITS:
        raise BundleError(
            f"{reference} returns probabilities for all pictures ({low:.3g}..{high:.3g}); a sigmoid on top would turn "
            "every mask grey. Nothing was written; import it with --activation none"
        )


def expected_levels(raw: Floats, facts: NetworkFacts) -> Levels:
    """Return the grey levels that the output of the published file, f32 `[H, W]`, means."""
    mask = raw.astype(np.float64)
    if facts.output_activation is OutputActivation.LOGITS:
        mask = (1 + np.tanh(mask / 2)) / 2  # the sigmoid, in a form that cannot overflow
    mask = np.clip(mask, 0, 1)
    if facts.output_stretch is OutputStretch.MIN_MAX:
        mask = (mask - mask.min()) / max(float(np.ptp(mask)), _TINY)
    return np.rint(255 * mask).astype(np.uint8)


def published_input(picture: Levels, shaped: Shaped, facts: NetworkFacts) -> Floats:
    """Return a picture u8 `[H, W, 3]` as the published file takes it."""
    planes = network_input(picture[np.newaxis], facts)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if shaped.takes_nhwc else planes


class _NotRun(Exception):
    """The other runtime is absent, or does not run the file."""


def _onnx_runtime(network: PublishedNetwork, shaped: Shaped) -> tuple[str, Run]:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise _NotRun("ONNX Runtime is not installed: pip install 'maskmill[import]'") from error
    runtime.set_default_logger_severity(_ERRORS_ONLY)
    try:
        session = runtime.InferenceSession(str(network.path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no public base class
        last = str(error).strip().splitlines()[-1]
        raise _NotRun(f"ONNX Runtime {runtime.__version__} does not run the file: {last}") from error
    image = session.get_inputs()[0]
    output = session.get_outputs()[shaped.output_index].name
    kind = np.float16 if image.type == "tensor(float16)" else np.float32

    def run(tensor: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return np.asarray(session.run([output], {image.name: tensor.astype(kind)})[0])

    return f"ONNX Runtime {runtime.__version__}", run


def _openvino(network: PublishedNetwork, shaped: Shaped) -> tuple[str, Run]:
    model = read(network.path).model
    size = shaped.size
    model.reshape([1, size.height, size.width, 3] if shaped.takes_nhwc else [1, 3, size.height, size.width])
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(tensor: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return np.asarray(compiled(tensor)[shaped.output_index])

    return f"the file itself in OpenVINO {version()}", run
