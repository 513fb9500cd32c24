"""What a network needs in memory: measured, so that a node is filled and never overfilled.

    process: Python, Celery's parent, weights, code, pictures in work     + streams x activations of one image

Peaks (`VmHWM`) of processes with one and two streams after warm-up, BiRefNet-lite as converted here, OpenVINO 2026.4:
the difference is a stream, the rest a process. Numbers set by hand win.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.contract.settings import ModelSettings, PlanSettings

UNKNOWN_PROCESS_MIB = 512
UNKNOWN_STREAM_MIB = 1024
"""Of a network that nothing is known about, where nobody said otherwise."""

BESIDE_MIB = 256
"""Added to what was measured: Celery's parent process (75 MiB) and pictures in work."""

_BUILTIN = "builtin:"
_BUILTIN_NEEDS = (150, 80)
"""Process and stream of the built-in networks: at most 300 MiB in all with two streams and pictures of 2 megapixels."""

_PEAKS: dict[tuple[int, str, str], tuple[int, int]] = {
    (512, "int8", "bf16"): (330, 200),
    (512, "int8", "f32"): (329, 203),
    (512, "int8wo", "bf16"): (355, 191),
    (512, "fp32", "bf16"): (447, 177),
    (512, "fp32", "f32"): (538, 189),
    (1024, "int8", "bf16"): (451, 453),
    (1024, "int8", "f32"): (444, 468),
    (1024, "int8wo", "bf16"): (476, 506),
    (1024, "fp32", "bf16"): (556, 479),
    (1024, "fp32", "f32"): (658, 547),
}
"""Side, precision as stored, arithmetic of the float part -> MiB of a process without its streams, of one stream. What
is not here counts as fp32 in f32, which needs the most."""

_LARGEST = max(size for size, _, _ in _PEAKS)


@dataclass(frozen=True)
class Needs:
    """Peak memory of a network."""

    process_mib: int
    stream_mib: int
    why: str


def needs(model: ModelSettings, precision: str, arithmetic: str) -> Needs:
    """Of the network of the settings.

    A size between those measured counts as the next larger one; beyond the largest a stream grows with the pixels.

    Args:
        model: its source and size; without a size the largest published one is assumed.
        precision: of the variant as stored.
        arithmetic: of its float part.
    """
    if model.source.startswith(_BUILTIN):
        process, stream = _BUILTIN_NEEDS
        return Needs(process + BESIDE_MIB, stream, "measured for the built-in network")
    side = model.size or _LARGEST
    stored = precision if (_LARGEST, precision, arithmetic) in _PEAKS else "fp32"
    known = arithmetic if (_LARGEST, stored, arithmetic) in _PEAKS else "f32"
    nearest = min((size for size, p, a in _PEAKS if (p, a) == (stored, known) and size >= side), default=_LARGEST)
    process, stream = _PEAKS[nearest, stored, known]
    if side > nearest:
        stream = stream * side * side // (nearest * nearest)
    return Needs(process + BESIDE_MIB, stream, f"measured for BiRefNet-lite {nearest} {stored} in {known}")


def filled(plan: PlanSettings, model: ModelSettings, precision: str, arithmetic: str) -> PlanSettings:
    """The settings of a plan with what the network needs, where nothing is set by hand."""
    found = needs(model, precision, arithmetic)
    return plan.model_copy(
        update={
            "memory_per_process_mib": plan.memory_per_process_mib or found.process_mib,
            "memory_per_stream_mib": plan.memory_per_stream_mib or found.stream_mib,
        }
    )


def process_mib(plan: PlanSettings) -> int:
    """Of one process without its streams."""
    return plan.memory_per_process_mib or UNKNOWN_PROCESS_MIB


def stream_mib(plan: PlanSettings) -> int:
    """Of one stream."""
    return plan.memory_per_stream_mib or UNKNOWN_STREAM_MIB
