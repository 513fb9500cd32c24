"""The built kernels on this disk, if they fit the OpenVINO that runs. Needs neither a compiler nor OpenVINO."""

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
    """A shared library built for the OpenVINO that is installed."""

    path: Path
    digest: str
    """SHA-256 of the file, for whoever keeps what was compiled with it."""

    def kernel(self, arithmetic: Arithmetic) -> str | None:
        """The inner loops that this CPU would run, such as `avx512_vnni`; None if it has none for this arithmetic.

        Loads the library, hence only after OpenVINO's own were loaded, which it is linked against.
        """
        ask = ctypes.CDLL(str(self.path)).maskmill_kernel
        ask.restype = ctypes.c_char_p
        name = ask(arithmetic.encode())
        return name.decode() if name else None


@dataclass(frozen=True)
class Missing:
    """No library to be used, and why."""

    reason: str


def find(openvino: str, folder: Path = FOLDER) -> Library | Missing:
    """The library in a folder.

    Args:
        openvino: version of the OpenVINO that runs; a library built for another one is not loaded.
        folder: with the library and the facts beside it, as `build` writes them.
    """
    path, facts = folder / LIBRARY, folder / FACTS
    if not path.is_file() or not facts.is_file():
        return Missing("the native kernels are not built")
    built_for = json.loads(facts.read_text("utf-8")).get("openvino")
    if built_for != openvino:
        return Missing(f"the native kernels were built for OpenVINO {built_for}, this is {openvino}")
    return Library(path, hashlib.sha256(path.read_bytes()).hexdigest())


def source_digest() -> str:
    """SHA-256 over all source files and their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
