"""Find the library of the native operations (see `worker.kernels`), and create them in graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from worker.contract.settings import NativeKernels
from worker.kernels import library
from worker.kernels.library import Library, Missing
from worker.model.inference.runtime import add_extension, version

Operation = Literal["deformable_convolution", "layer_norm", "window_attention"]


@dataclass(frozen=True)
class Replacement:
    """How the operations of one kind in a graph will run."""

    replaced: int
    """Number of operations that run on the native kernels."""

    left: int
    """Number of operations that run on OpenVINO's own kernel."""

    kernel: str | None
    """Native inner loops in use, such as `avx512_vnni`; None if nothing was replaced."""

    digest: str
    """SHA-256 of the native library; empty if it is not used."""

    notes: tuple[str, ...]

    def describe(self) -> str:
        """Return a short text, such as `20 of 20 on avx512_vnni`."""
        total = self.replaced + self.left
        if not total:
            return "none in this network"
        return f"{self.replaced} of {total} on {self.kernel}" if self.replaced else f"{total} on OpenVINO's own kernel"


def uses(mode: NativeKernels, operation: Operation) -> bool:
    """Return whether a native operation may run."""
    return mode in ("auto", operation)


def installed() -> Library | Missing:
    """Return the native library for the OpenVINO version of this process, or why there is none."""
    return library.find(version())


def usable(operation: Operation, mode: NativeKernels) -> Library | None:
    """Return the native library if it may run an operation and can be loaded; None without a word if not.

    `worker.model.inference.native.deformable` notes why there is no library: it is the operation that is missed most.
    """
    found = installed() if uses(mode, operation) else None
    if not isinstance(found, Library):
        return None
    try:
        found.layer_norm()  # loads the library
    except OSError:
        return None
    return found


def creator(native: Library) -> Callable[..., Any]:
    """Register the operations of the library with the Core; return what creates one by name, inputs and attributes."""
    add_extension(str(native.path))
    factory = importlib.import_module("openvino.utils.node_factory").NodeFactory()
    factory.add_extension(str(native.path))
    create: Callable[..., Any] = factory.create
    return create
