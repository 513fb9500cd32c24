"""Recommend a precision for this CPU, from its flags and never from its vendor.

Used by `worker plan`, `worker check` and, for `auto` in the model settings, by `worker.model.loading`. Flag names are
those of /proc/cpuinfo (kernel, `arch/x86/include/asm/cpufeatures.h`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Isa = Literal["amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512", "avx2", "other"]
BundlePrecision = Literal["int8", "int8wo", "fp16", "fp32"]
Arithmetic = Literal["bf16", "f32"]

SMALL_MEMORY_BYTES = 16_000_000_000
"""With less memory than this, INT8 comes first. Decimal, so that a machine sold with 16 GB is not below it."""

VNNI = frozenset({"avx512_vnni", "avx_vnni"})
"""Flags of CPUs that add products of INT8 in 32 bits."""

_LEVELS: tuple[tuple[Isa, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_tile", "amx_int8", "amx_bf16"})),
    ("avx512_bf16", frozenset({"avx512f", "avx512_bf16"})),
    ("avx512_vnni", frozenset({"avx512f", "avx512_vnni"})),
    ("avx_vnni", frozenset({"avx2", "avx_vnni"})),
    ("avx512", frozenset({"avx512f"})),
    ("avx2", frozenset({"avx2"})),
)
"""Best first; a CPU is at the first level of which it has all flags."""

# fp32 comes before fp16: half-precision weights only make the file smaller, the arithmetic is the same.
_FLOAT_FIRST: tuple[BundlePrecision, ...] = ("fp32", "fp16", "int8", "int8wo")
_INT8_FIRST: tuple[BundlePrecision, ...] = ("int8", "int8wo", "fp32", "fp16")


@dataclass(frozen=True)
class Recommendation:
    """The variants to prefer in a bundle, and the precision to run their float part in."""

    isa: Isa
    precisions: tuple[BundlePrecision, ...]
    """Stored precisions, best first."""

    inference_precision: Arithmetic
    """OpenVINO's INFERENCE_PRECISION_HINT."""

    why: tuple[str, ...]
    """One sentence per decision."""


def recommend(flags: frozenset[str], memory_bytes: int) -> Recommendation:
    """Recommend precisions for a CPU with these flags and this much memory.

    Args:
        flags: from /proc/cpuinfo.
        memory_bytes: memory that the process may use, as in `Topology.memory_bytes`.
    """
    isa: Isa = next((name for name, needed in _LEVELS if needed <= flags), "other")
    vnni = bool(flags & VNNI)
    precisions, why = _variants(isa, vnni)
    arithmetic, also = _arithmetic(flags)
    why += also
    if memory_bytes < SMALL_MEMORY_BYTES:
        if precisions is not _INT8_FIRST:
            why.append("Less than 16 GB of memory: INT8 goes first after all, because it needs the least memory.")
        precisions = _INT8_FIRST
    return Recommendation(isa, precisions, arithmetic, tuple(why))


def _variants(isa: Isa, vnni: bool) -> tuple[tuple[BundlePrecision, ...], list[str]]:
    if isa == "amx":
        return _FLOAT_FIRST, [
            "AMX: bf16 matrix products are native and need no calibration, so float weights run in bf16 go first; INT8 "
            "may be even faster, which `worker tune` measures."
        ]
    if vnni:
        return _INT8_FIRST, ["VNNI: INT8 products are native, so INT8 goes first."]
    if isa == "avx512_bf16":
        return _FLOAT_FIRST, ["AVX-512 with bf16 but without VNNI: float weights run in bf16 go first."]
    return _FLOAT_FIRST, [
        "No VNNI: INT8 gains little, and saturates unless it was quantised to avoid overflow, so float goes first."
    ]


def _arithmetic(flags: frozenset[str]) -> tuple[Arithmetic, list[str]]:
    if {"amx_tile", "amx_bf16"} <= flags or {"avx512f", "avx512_bf16"} <= flags:
        why = ["bf16 is native on this CPU: the float part runs in bf16."]
        if flags & {"amx_fp16", "avx512_fp16"}:
            why.append(
                "fp16 arithmetic is native too, but not used: it ends at 65504, while bf16 has the range of f32."
            )
        return "bf16", why
    return "f32", ["bf16 is not native on this CPU, and simulating it is slow: the float part runs in f32."]
