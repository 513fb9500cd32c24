"""Read a published checkpoint of BiRefNet strictly: all names must be known and all shapes correct.

A `.safetensors` file needs only the `safetensors` package; a `.pth` or `.pt` release is a pickle that needs PyTorch.
Only tensors are unpickled.
"""

from __future__ import annotations

import importlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError, BundleNotFound, SetupError
from worker.convert.birefnet import layout
from worker.convert.birefnet.layout import Backbone
from worker.convert.birefnet.rewrites import Array

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that data-parallel training and compilation add to every name, in either order, once or more."""

PICKLES = (".pth", ".pt")

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}
"""NumPy types by safetensors name; BF16 is handled separately, because NumPy has no such type."""

MAX_HEADER_BYTES = 10_000_000
"""Upper limit for the header of a safetensors file, which lists some hundred arrays."""

MOST_LISTED = 20
"""Most names listed per complaint; the count is always given."""

Arrays = dict[str, npt.NDArray[Any]]


def load(path: Path | str) -> dict[str, Array]:
    """Read a checkpoint.

    Args:
        path: A `.safetensors`, `.pth` or `.pt` file.

    Returns:
        The arrays that the network reads, float32, by published name without prefixes.

    Raises:
        BundleNotFound: The file does not exist.
        BundleError: The file is damaged or not a checkpoint of BiRefNet; the wrong names are listed.
        SetupError: The package that reads this kind of file is not installed.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"no checkpoint at {path}; give the path of model.safetensors"
        raise BundleNotFound(msg)
    return validate(_read(path), str(path))


def backbone_in(path: Path) -> Backbone | None:
    """Tell the backbone of a `.safetensors` file from its header, without reading the weights.

    Returns:
        None if the file is of another kind, damaged, or not a checkpoint of BiRefNet; `load` says what is wrong.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES)))
        shapes = {_bare(name): tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    backbone = layout.backbone_of(shapes)
    required = layout.required(backbone)
    return backbone if all(shapes.get(name) == shape for name, shape in required.items()) else None


def validate(arrays: Mapping[str, npt.NDArray[Any]], source: str) -> dict[str, Array]:
    """Compare a state dict with the published names and shapes, and return the arrays that the network reads.

    Args:
        arrays: The state dict, with or without prefixes.
        source: Name of the state dict in an error.

    Raises:
        BundleError: A name is unknown, missing or given twice, a shape is wrong, or a value is not finite.
    """
    found = _without_prefixes(arrays, source)
    backbone = layout.backbone_of({name: values.shape for name, values in found.items()})
    required, optional = layout.required(backbone), layout.optional(backbone)
    known = {**required, **optional}
    complaints = {
        "unknown": [name for name in found if name not in known],
        "missing": [name for name in required if name not in found],
        "wrong shape": [
            f"{name} {found[name].shape} instead of {known[name]}"
            for name in found
            if name in known and found[name].shape != known[name]
        ],
        "not finite": [name for name in required if name in found and not np.isfinite(found[name]).all()],
    }
    if any(complaints.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in complaints.items() if names)
        msg = f"{source} is not a checkpoint of BiRefNet with {backbone.name}: {listed}"
        raise BundleError(msg)
    return {name: np.ascontiguousarray(found[name], np.float32) for name in required}


def _without_prefixes(arrays: Mapping[str, npt.NDArray[Any]], source: str) -> Arrays:
    found: Arrays = {}
    for name, values in arrays.items():
        bare = _bare(name)
        if bare in found:
            msg = f"{source} holds {bare} more than once, under different prefixes"
            raise BundleError(msg)
        found[bare] = values
    return found


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _read(path: Path) -> Arrays:
    if path.suffix in (".onnx", ".xml"):
        msg = f"{path} is a finished network, not a model.safetensors; import it with `worker model import {path}`"
        raise BundleError(msg)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return _read_pickle(path)
    msg = f"{path} is neither .safetensors nor .pth; give a model.safetensors such as that of ZhengPeng7/BiRefNet_lite"
    raise BundleError(msg)


def _read_safetensors(path: Path) -> Arrays:
    try:
        library: Any = importlib.import_module("safetensors")
    except ImportError as error:
        msg = f"reading {path} needs safetensors: pip install 'maskmill[convert]'"
        raise SetupError(msg) from error
    try:
        entries = library.deserialize(path.read_bytes())
    except library.SafetensorError as error:
        msg = f"{path} is truncated or not a safetensors file ({error}); download it again"
        raise BundleError(msg) from error
    return {name: _decoded(name, entry, path) for name, entry in entries}


def _decoded(name: str, entry: Mapping[str, Any], path: Path) -> npt.NDArray[Any]:
    """Decode one tensor; a bfloat16 is the upper half of a float32."""
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind == "BF16":
        halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(shape)
    if kind not in FLOATS:
        msg = f"{path}: {name} is stored as {kind}; give a floating-point checkpoint"
        raise BundleError(msg)
    return np.frombuffer(entry["data"], FLOATS[kind]).reshape(shape)


def _read_pickle(path: Path) -> Arrays:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        msg = f"reading {path} needs PyTorch: pip install torch, or use the published model.safetensors instead"
        raise SetupError(msg) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        msg = f"{path} is truncated or holds more than tensors ({error}); download it again"
        raise BundleError(msg) from error
    if not isinstance(state, Mapping) or not all(isinstance(values, torch.Tensor) for values in state.values()):
        msg = f"{path} does not hold a plain state dict; give a checkpoint of BiRefNet"
        raise BundleError(msg)
    return {name: (values.float() if values.is_floating_point() else values).numpy() for name, values in state.items()}
