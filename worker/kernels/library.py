"""Find the built kernels for an OpenVINO version. Needs neither a compiler nor OpenVINO."""

from __future__ import annotations

import ctypes
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Arithmetic = Literal["f32", "bf16", "i8"]

HOME = Path(__file__).parent
SOURCES = HOME / "src"
FOLDER = HOME / "lib"
LIBRARY = "libmaskmill_kernels.so"
FACTS = "built.json"


@dataclass(frozen=True)
class Library:
    """A shared library built for the OpenVINO version in use."""

    path: Path
    digest: str
    """SHA-256 of the file; part of the key of compiled models that use it."""

    def kernel(self, arithmetic: Arithmetic) -> str | None:
        """Return the inner loops that this CPU would run, such as `avx512_vnni`; None if it supports none.

        This loads the library, which is linked against OpenVINO's libraries: call it after those were loaded.
        """
        return self._name("maskmill_kernel", arithmetic)

    def attention(self, floats: Literal["f32", "bf16"]) -> str | None:
        """Return the inner loops of window attention, such as `avx512_vnni, avx512_bf16`; None without VNNI.

        Like `kernel`, this loads the library.

        Args:
            floats: arithmetic of the float part of the network.
        """
        return self._name("maskmill_attention", floats)

    def layer_norm(self) -> str | None:
        """Return the inner loops of layer norm, `avx512_f32`; None without AVX-512.

        Like `kernel`, this loads the library.
        """
        return "avx512_f32" if ctypes.CDLL(str(self.path)).maskmill_layer_norm() else None

    def _name(self, function: str, arithmetic: str) -> str | None:
        find_name = getattr(ctypes.CDLL(str(self.path)), function)
        find_name.restype = ctypes.c_char_p
        name: bytes | None = find_name(arithmetic.encode())
        return name.decode() if name else None


@dataclass(frozen=True)
class Missing:
    """There is no usable library."""

    reason: str
    """A sentence for messages."""


def find(openvino: str, folder: Path = FOLDER) -> Library | Missing:
    """Return the library in a folder, if it was built for this version of OpenVINO.

    Args:
        openvino: version of the OpenVINO in use; a library for another version is not loaded.
        folder: contains the library and the facts about it, as `build` writes them.
    """
    path, facts = folder / LIBRARY, folder / FACTS
    if not path.is_file() or not facts.is_file():
        return Missing("the native kernels are not built")
    built_for = json.loads(facts.read_text("utf-8")).get("openvino")
    if built_for != openvino:
        return Missing(f"the native kernels were built for OpenVINO {built_for}, this is {openvino}")
    return Library(path, hashlib.sha256(path.read_bytes()).hexdigest())


def source_digest() -> str:
    """Return the SHA-256 of the names and contents of all source files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
