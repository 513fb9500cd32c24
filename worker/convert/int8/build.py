"""Quantise a network so that it holds, in a process of its own: `python -m worker.convert.int8.build`.

The protocol is that of `worker.convert.build_variant`: the task as JSON on standard input, progress and the result as
JSON lines on standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.convert import quantise
from worker.convert.build_variant import OnProgress, serve
from worker.convert.evaluate import scores
from worker.convert.int8 import constant_channels, float_layers, layers, resizing, rounding_noise
from worker.convert.int8.constant_channels import CentredLayer
from worker.convert.int8.outcome import Figures, Outcome, Step
from worker.convert.int8.rounding_noise import LayerNoise
from worker.convert.int8.search import search
from worker.convert.network_input import network_input
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.model.format.variant import Variant
from worker.model.inference.facts import SECTION, NetworkFacts, read_facts
from worker.model.inference.graph import prepare
from worker.model.inference.runtime import core, ov

CONFIG = QuantisationConfig(overflow=Overflow.NOWHERE, bias_correction=False)
"""Weights have eight bits: with seven, U²-Net-p does not hold (IoU with FP32 .974 instead of .988). Without VNNI the
sums of such products may saturate; `worker.cpu.isa` puts float first on such CPUs."""

_STATISTICS_PICTURES = 8
"""Pictures on which constant channels are looked for: these are the same in all pictures."""

_NOISE_PICTURES = 4
"""Pictures on which rounding noise is measured; layers differ by far more than pictures do."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Int8Task:
    """What to quantise."""

    xml: str
    """IR of the float network, in float32, with its facts in `model_info`."""
    name: str
    size: str
    """`HEIGHTxWIDTH`."""
    output: str
    """`.xml` to write. It is there afterwards only if the network holds."""
    calibration: str
    """`.npy` of u8 `[n, H, W, 3]`."""
    judged: str
    """`.npy` of u8 `[n, H, W, 3]`: other pictures."""


def build(task: Int8Task, on_progress: OnProgress) -> Outcome:
    """Quantise the network and write it if it holds.

    Raises:
        MaskmillError: the network, NNCF or the disk fails.
    """
    exact = core().read_model(task.xml)
    facts = read_facts(exact, task.xml)
    pictures, judged = np.load(task.calibration, mmap_mode="r"), np.load(task.judged, mmap_mode="r")
    judge = _Judge(task, judged, on_progress)
    on_progress("masks of FP32", 0, 0)
    judge.use_reference(Path(task.xml))
    total = len(pictures)
    spread = pictures[:: -(-total // _STATISTICS_PICTURES)]
    on_progress("look for constant channels", 0, len(spread))
    centred = constant_channels.centre(
        exact,
        _inputs(spread, facts),
        lambda done: on_progress("look for constant channels", done, len(spread)),
    )
    on_progress("quantise", 0, total)
    quantised = quantise.post_training(
        exact.clone(), pictures, CONFIG, lambda done: on_progress("quantise", done, total), facts=facts
    )
    candidate = _Quantised(exact, quantised, judge, lambda: _inputs(pictures[:: -(-total // _NOISE_PICTURES)], facts))
    start = "all layers in INT8"
    if centred:
        channels = sum(len(one.channels) for one in centred)
        start = f"constants taken off {channels} channels of {len(centred)} convolutions, {start}"
    found = search(candidate, start, lambda step: on_progress(_line(step), 0, 0))
    if not found.holds:
        for path in (Path(task.output), Path(task.output).with_suffix(".bin")):
            path.unlink(missing_ok=True)
    return Outcome(
        found.holds,
        found.steps,
        judge.exact_core_seconds,
        tuple(map(_facts_of, centred)),
        found.float_layers,
        found.float_share,
    )


def _inputs(pictures: Pixels, facts: NetworkFacts) -> Iterator[npt.NDArray[np.float32]]:
    for index in range(len(pictures)):
        yield network_input(pictures[index : index + 1], facts)


def _line(step: Step) -> str:
    return f"{step.what}: {step.figures}"


def _facts_of(one: CentredLayer) -> dict[str, Any]:
    return {"layer": one.name, "channels": list(one.channels), "means": list(one.means)}


class _Judge:
    """Writes a form of the network, loads it as the engine does, and compares its masks with those of FP32.

    The float part always runs in f32, so that results of two machines are comparable.
    """

    def __init__(self, task: Int8Task, pictures: Pixels, on_progress: OnProgress) -> None:
        self._task, self._pictures, self._on_progress = task, pictures, on_progress
        self._reference: list[Pixels] = []
        self.exact_core_seconds = 0.0

    def use_reference(self, xml: Path) -> None:
        self._reference, self.exact_core_seconds = self._masks(xml, "fp32")

    def figures(self, model: Any, section: Mapping[str, str]) -> Figures:
        stored = model.clone()
        constant_channels.store_compactly(stored)
        for key, value in section.items():
            stored.set_rt_info(value, [SECTION, key])
        xml = Path(self._task.output)
        try:
            ov.save_model(stored, str(xml), compress_to_fp16=False)
        except RuntimeError as error:
            raise BundleError(f"{xml.name} cannot be written ({error}); check the free disk space") from error
        masks, seconds = self._masks(xml, "int8")
        agreement, worst = scores.agreement(zip(masks, self._reference, strict=True))
        return Figures(round(agreement.iou, 6), round(worst, 6), round(agreement.mae, 6), agreement.pictures, seconds)

    def _masks(self, xml: Path, precision: str) -> tuple[list[Pixels], float]:
        size = InputSize.parse(self._task.size)
        variant = Variant(self._task.name, size, precision, xml, xml.with_suffix(".bin"), "0" * 64)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        compiled = core().compile_model(prepare(variant).model, "CPU", settings)
        compiled(self._pictures[:1])  # allocates memory, which is not to be timed
        began, masks = time.process_time(), []
        for index in range(len(self._pictures)):
            masks.append(compiled(self._pictures[index : index + 1])[0][0, 0].copy())
            self._on_progress(f"masks of {precision.upper()}", index + 1, len(self._pictures))
        return masks, round((time.process_time() - began) / len(masks), 4)


class _Quantised:
    """The candidate of the search; see `worker.convert.int8.search.Candidate`."""

    def __init__(self, exact: Any, quantised: Any, judge: _Judge, inputs: Any) -> None:
        self._exact, self._model, self._judge, self._inputs = exact, quantised, judge, inputs
        self._maps = [*resizing.share_quantisers(quantised), *resizing.resize_in_int8(quantised)]
        section = exact.get_rt_info([SECTION]).value if exact.has_rt_info([SECTION]) else {}
        self._section = {str(key): str(value) for key, value in section.items()}

    def float_maps(self) -> bool:
        changed, self._maps = self._maps, []
        resizing.restore(changed)
        return bool(changed)

    def float_answer(self) -> bool:
        quantisers = layers.quantisers_of_the_answer(self._model)
        for quantiser in quantisers:
            layers.remove_quantiser(quantiser)
        return bool(quantisers)

    def noise(self) -> Sequence[LayerNoise]:
        return rounding_noise.rounding_noise(self._exact, self._model, self._inputs())

    def float_layers(self, noisy: Sequence[LayerNoise]) -> None:
        float_layers.leave_in_float(self._model, self._exact, noisy)

    def products(self) -> Mapping[str, int]:
        return {name: layers.products(layer) for name, layer in layers.layers(self._exact).items()}

    def judge(self) -> Figures:
        return self._judge.figures(self._model, self._section)


def main() -> int:
    """Quantise the task on standard input."""
    return serve(lambda task, on_progress: _as_given(build(Int8Task(**task), on_progress)))


@dataclass(frozen=True)
class _Answer:
    outcome: dict[str, Any]


def _as_given(outcome: Outcome) -> _Answer:
    return _Answer(asdict(outcome))


if __name__ == "__main__":
    sys.exit(main())
