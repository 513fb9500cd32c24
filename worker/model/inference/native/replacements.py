"""Replace all operations of a graph for which there are native kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.contract.settings import NativeKernels
from worker.model.inference.native import deformable, layer_norm, window_attention
from worker.model.inference.native.operations import Replacement


@dataclass(frozen=True)
class Replacements:
    """How the operations of a graph will run."""

    deformable_convolution: Replacement
    layer_norm: Replacement
    window_attention: Replacement

    @property
    def key(self) -> tuple[str, ...]:
        """What a compiled model depends on: kernels in use, and the digest of their library."""
        all_of_them = self.deformable_convolution, self.layer_norm, self.window_attention
        return (*(one.kernel or "" for one in all_of_them), max(one.digest for one in all_of_them))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what does not run on the native kernels although it could."""
        return self.deformable_convolution.notes

    def describe(self) -> dict[str, str]:
        """Return operation -> a short text, such as `20 of 20 on avx512_vnni`."""
        return {
            "deformable_convolution": self.deformable_convolution.describe(),
            "layer_norm": self.layer_norm.describe(),
            "window_attention": self.window_attention.describe(),
        }


def replace(model: Any, *, mode: NativeKernels, int8: bool, floats: str) -> Replacements:
    """Replace what the native kernels support in `model`, and register their operations with the Core.

    Args:
        model: changed in place; its shapes must be static.
        mode: which operations may be replaced.
        int8: whether the network is quantised.
        floats: arithmetic of its float part: f32, bf16 or f16.
    """
    return Replacements(
        deformable.replace(model, mode=mode, int8=int8, floats=floats),
        layer_norm.replace(model, mode=mode, int8=int8, floats=floats),
        window_attention.replace(model, mode=mode, int8=int8, floats=floats),
    )
