"""Facts about the machine of a measurement: without them, figures cannot be compared."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import TypedDict

from worker.bench.harness.process import environment
from worker.cpu import isa
from worker.cpu.kernel import format_cpu_list
from worker.cpu.topology import Topology

PACKAGES = ("maskmill", "openvino", "numpy", "nncf", "torch", "onnxruntime", "onnx", "matplotlib")

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ISA_PREFIXES = ("avx", "fma", "f16c", "amx")
"""Prefixes of the CPU flags that decide which kernels run."""


class MachineFacts(TypedDict):
    """Machine, system and versions, ready for JSON."""

    cpu: str
    isa: str
    isa_words: str
    cpu_flags: list[str]
    online_cpus: int
    physical_cores: int
    numa_nodes: int
    mask: str
    usable_cpus: str
    quota_cpus: float | None
    memory_bytes: int
    transparent_huge_pages: str | None
    GLIBC_TUNABLES: str
    ONEDNN_MAX_CPU_ISA: str | None
    OMP_NUM_THREADS: str | None
    kernel: str
    libc: str
    python: str
    versions: dict[str, str | None]
    notes: list[str]


def facts(machine: Topology) -> MachineFacts:
    """Return the facts about this machine."""
    advice = isa.recommend(machine.flags, machine.memory_bytes)
    return {
        "cpu": machine.model_name,
        "isa": advice.isa,
        "isa_words": isa_words(machine.flags),
        "cpu_flags": sorted(flag for flag in machine.flags if flag.startswith(_ISA_PREFIXES)),
        "online_cpus": len(machine.cpus),
        "physical_cores": len({cpu.core for cpu in machine.cpus}),
        "numa_nodes": len({cpu.node for cpu in machine.cpus}),
        "mask": format_cpu_list(machine.affinity),
        "usable_cpus": format_cpu_list(machine.usable),
        "quota_cpus": machine.quota_cpus,
        "memory_bytes": machine.memory_bytes,
        "transparent_huge_pages": _HUGE_PAGES.read_text("ascii").strip() if _HUGE_PAGES.is_file() else None,
        "GLIBC_TUNABLES": environment()["GLIBC_TUNABLES"],
        "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "notes": list(machine.notes),
    }


def isa_words(flags: frozenset[str]) -> str:
    """Return the instruction sets that matter for a neural network, in words: `AVX2, no VNNI, no bf16`."""
    widest = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    words = [widest, "VNNI" if flags & {"avx512_vnni", "avx_vnni"} else "no VNNI"]
    words.append("bf16" if flags & {"avx512_bf16", "amx_bf16"} else "no bf16")
    if "amx_tile" in flags:
        words.append("AMX")
    return ", ".join(words)


def version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(*modules: str) -> list[str]:
    """Return those of the modules that are not installed, without importing any."""
    return [module for module in modules if importlib.util.find_spec(module) is None]


def load_average() -> float:
    """Return the average number of runnable processes over the last minute (getloadavg(3)): a sign of disturbance."""
    return round(os.getloadavg()[0], 2)
