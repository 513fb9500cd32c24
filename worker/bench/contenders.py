"""The list of contenders, from the variants on disk and the libraries that are installed. No process starts here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from worker.bench.harness.requests import NetworkRequest, files_of
from worker.bench.prepare import NAME
from worker.contract.errors import BundleNotFound
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings, NativeKernels
from worker.model.format.variant import Variant
from worker.model.sources.bundles import available, locate

Job = Literal["openvino", "benchmark_app", "pytorch", "onnxruntime"]
Role = Literal["plain", "ours", "check", "other"]


@dataclass(frozen=True)
class Contender:
    """One row of the comparison."""

    label: str
    job: Job
    role: Role
    """`plain`: the network without rewrites; `ours`: a variant of maskmill; `check`: benchmark_app; `other`: another
    runtime."""

    arithmetic: str
    """Of the float part: f32 or bf16."""

    variant: Variant | None = None
    """The network's files, for OpenVINO."""

    needs: tuple[str, ...] = ()
    """Modules that must be installed."""

    kernels: NativeKernels = "off"
    """Which native operations the engine may use (see `worker.kernels`)."""

    huge_pages: bool = True
    """Whether malloc asks for huge pages, as it does in workers; PyTorch on its own does without."""

    def request(self) -> NetworkRequest:
        """Return the fields of a request that depend on the contender alone."""
        return {
            "job": self.job,
            "arithmetic": self.arithmetic,
            "variant": files_of(self.variant) if self.variant else None,
            "huge_pages": self.huge_pages,
            "kernels": self.kernels,
        }


_ALONE: tuple[tuple[NativeKernels, str], ...] = (
    ("deformable_convolution", "deformable convolution alone"),
    ("layer_norm", "layer norm alone"),
    ("window_attention", "window attention alone"),
)


def variants(folder: Path, size: InputSize) -> list[Variant]:
    """Return the verified variants of a bundle at this size, most exact first.

    Raises:
        BundleNotFound: there is none, or there are several models and none is BiRefNet-lite.
        BundleError: a variant is damaged.
    """
    listing = available(ModelSettings(source=str(folder)))
    of_size = [c for c in listing.candidates if c.size == size]
    names = {c.name for c in of_size}
    name = NAME if NAME in names else next(iter(names), None)
    if name is None or (len(names) > 1 and name != NAME):
        raise BundleNotFound(
            f"{folder} has no single model of size {size.short} to measure; it has: {listing.labels()}; choose --size"
        )
    of_name = {"source": str(folder), "name": name, "size": size}
    return [
        locate(ModelSettings.model_validate({**of_name, "precision": c.precision})).variant
        for c in of_size
        if c.name == name
    ]


def contenders(plain: Variant, ours: Sequence[Variant], arithmetic: str, *, native: bool = False) -> list[Contender]:
    """Return all contenders of one size, the plain network first.

    Args:
        plain: the network without rewrites.
        ours: the variants to measure.
        arithmetic: in which this CPU runs the float part; with bf16, float networks are also measured in f32.
        native: whether each of ours is also measured with the native kernels, and INT8 with each operation alone.
    """
    kinds = dict.fromkeys(("f32", arithmetic))
    rows = [Contender(f"plain conversion {kind}", "openvino", "plain", kind, plain) for kind in kinds]
    for variant in ours:
        for kind in kinds if variant.precision == "fp32" else (arithmetic,):
            label = f"maskmill {variant.precision}" + (f" in {kind}" if kind != "f32" else "")
            rows.append(Contender(label, "openvino", "ours", kind, variant))
    own = [row for row in rows if row.role == "ours" and native]
    rows += [replace(row, label=f"{row.label}, native kernels", kernels="auto") for row in own]
    quantised = [row for row in own if row.variant is not None and row.variant.precision == "int8"]
    rows += [
        replace(row, label=f"{row.label}, native {words}", kernels=mode) for row in quantised for mode, words in _ALONE
    ]
    checked = [row for row in rows if row.role == "ours" and row.arithmetic == arithmetic and row.kernels == "off"]
    rows += [
        Contender(f"benchmark_app on {row.label}", "benchmark_app", "check", row.arithmetic, row.variant)
        for row in checked
    ]
    rows.append(Contender("PyTorch eager", "pytorch", "other", "f32", needs=("torch",), huge_pages=False))
    rows.append(Contender("PyTorch eager, huge pages", "pytorch", "other", "f32", needs=("torch",)))
    rows.append(Contender("ONNX Runtime", "onnxruntime", "other", "f32", needs=("onnxruntime", "torch", "onnx")))
    return rows
