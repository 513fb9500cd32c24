"""Measured peak memory of a network, from which the plan derives what fits into a node.

    process: Python, Celery's parent, weights, code, images in flight     + streams x activations of one image

Measured as the peak resident set size (`VmHWM`) of processes with one and with two streams after warm-up, for
BiRefNet-lite as converted here and OpenVINO 2026.4: the difference is a stream, the remainder a process. Numbers set by
hand take precedence.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.contract.settings import ModelSettings, PlanSettings

UNKNOWN_PROCESS_MIB = 512
UNKNOWN_STREAM_MIB = 1024
"""Assumed for a network that was not measured, unless the settings say otherwise."""

OVERHEAD_MIB = 256
"""Added to the measured process: Celery's parent process (75 MiB) and images in flight."""

PICTURES_MIB = 160
"""The part of it for images in flight."""

_SPARE_SHARE = 0.75
"""Part of the memory that the plan leaves which images in flight may use: other programs run beside the workers."""

_BUILTIN = "builtin:"
_BUILTIN_NEEDS = (150, 80)
"""Process and stream of the built-in networks: at most 300 MiB in total with two streams and images of 2 megapixels."""

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
"""(Side of a square input, stored precision, arithmetic of the float part) -> (MiB of a process without its streams,
MiB of one stream). A combination that is missing counts as fp32 in f32, which needs the most."""

LARGEST_KNOWN = max(size for size, _, _ in _PEAKS)
"""Side of the largest square input for which BiRefNet-lite was measured."""


@dataclass(frozen=True)
class MeasuredPeak:
    """Peak memory that the manifest of a bundle states for the variant that runs."""

    process_mib: int
    """One process without its streams."""
    stream_mib: int
    what: str
    """Variant and arithmetic in words: `u2netp 320 fp32 in bf16`."""


@dataclass(frozen=True)
class MemoryNeeds:
    """Peak memory of a network, and a sentence that says where the numbers come from."""

    process_mib: int
    stream_mib: int
    why: str


def needs(model: ModelSettings, precision: str, arithmetic: str, measured: MeasuredPeak | None = None) -> MemoryNeeds:
    """Return the peak memory of the network in the settings.

    Sizes are compared by their pixels. A size between two measured ones counts as the larger one. Beyond the largest, a
    stream grows with the pixels.

    Args:
        model: source and size; without a size, the largest published one is assumed.
        precision: stored precision of the variant.
        arithmetic: of its float part.
        measured: what the bundle states; None if it states nothing, and the table for BiRefNet-lite is used.
    """
    if measured:
        process = measured.process_mib + OVERHEAD_MIB
        return MemoryNeeds(process, measured.stream_mib, f"measured when the bundle of {measured.what} was made")
    if model.source.startswith(_BUILTIN):
        process, stream = _BUILTIN_NEEDS
        return MemoryNeeds(process + OVERHEAD_MIB, stream, "measured for the built-in network")
    pixels = model.size.pixels if model.size else LARGEST_KNOWN**2
    stored = precision if (LARGEST_KNOWN, precision, arithmetic) in _PEAKS else "fp32"
    known = arithmetic if (LARGEST_KNOWN, stored, arithmetic) in _PEAKS else "f32"
    nearest = min(
        (size for size, p, a in _PEAKS if (p, a) == (stored, known) and size**2 >= pixels), default=LARGEST_KNOWN
    )
    process, stream = _PEAKS[nearest, stored, known]
    if pixels > nearest**2:
        stream = stream * pixels // nearest**2
    return MemoryNeeds(process + OVERHEAD_MIB, stream, f"measured for BiRefNet-lite {nearest} {stored} in {known}")


def with_memory_needs(
    plan: PlanSettings, model: ModelSettings, precision: str, arithmetic: str, measured: MeasuredPeak | None = None
) -> PlanSettings:
    """Return the settings of a plan with the peak memory of the network, unless it is set by hand."""
    found = needs(model, precision, arithmetic, measured)
    return plan.model_copy(
        update={
            "memory_per_process_mib": plan.memory_per_process_mib or found.process_mib,
            "memory_per_stream_mib": plan.memory_per_stream_mib or found.stream_mib,
        }
    )


def pictures_mib(usable_mib: int, needed_mib: int, processes: int) -> int:
    """Return the memory for images in flight of each process: its part of the plan, and a share of what is left."""
    return PICTURES_MIB + int(max(0, usable_mib - needed_mib) * _SPARE_SHARE) // max(1, processes)


def process_mib(plan: PlanSettings) -> int:
    """Return the peak memory of one process without its streams, in MiB."""
    return plan.memory_per_process_mib or UNKNOWN_PROCESS_MIB


def stream_mib(plan: PlanSettings) -> int:
    """Return the peak memory of one stream, in MiB."""
    return plan.memory_per_stream_mib or UNKNOWN_STREAM_MIB
