"""Read the file of a published network as an OpenVINO graph, or say clearly why that is not possible."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.errors import BundleError, BundleNotFound
from worker.convert.importing.onnx_file import OnnxFrame, read_frame
from worker.model.inference.runtime import core, ov
from worker.model.inference.weights import check_numbers, constants

SUFFIXES = (".onnx", ".xml", ".tflite")

_UNSUPPORTED = re.compile(r"(?:No conversion rule found for operations?|No translator found for):? ([^\n]+)")
_DEFORMABLE = re.compile(r"\b(DeformConv|deform_conv2d)")


@dataclass(frozen=True)
class PublishedNetwork:
    """A published file as a graph, unchanged except that 16-bit values are computed in 32 bits."""

    path: Path
    model: Any
    frame: OnnxFrame | None
    """None for a file that is not ONNX."""
    half: bool
    """Whether most of its weights have 16 bits."""

    @property
    def kind(self) -> str:
        """Format in words."""
        if self.frame is None:
            return {".xml": "OpenVINO IR", ".tflite": "TensorFlow Lite"}[self.path.suffix.lower()]
        return f"ONNX, opset {self.frame.opset}" + (f", from {self.frame.producer}" if self.frame.producer else "")


def find_file(source: Path) -> Path:
    """Return the network's file: `source` itself, or the only network in that folder.

    Raises:
        BundleNotFound: there is none, or more than one.
        BundleError: the file is of another kind.
    """
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise BundleError(_wrong_kind(source))
        return source
    if not source.is_dir():
        raise BundleNotFound(f"no file or folder {source}; give the path of an .onnx file or of an OpenVINO .xml")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise BundleNotFound(f"{source} holds no {', '.join(SUFFIXES)} file; give the path of the network's file")
    names = ", ".join(path.relative_to(source).as_posix() for path in found[:8])
    raise BundleNotFound(f"{source} holds {len(found)} networks: {names}; give the path of one of them")


def _wrong_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".safetensors", ".pth", ".pt"):
        return (
            f"{path} holds weights without a graph; build BiRefNet from it with `worker model convert --checkpoint`, "
            "or export another network to ONNX first"
        )
    return f"{path} is not one of {', '.join(SUFFIXES)}; export the network to ONNX first"


def read(path: Path) -> PublishedNetwork:
    """Read a network.

    Raises:
        BundleError: the file is damaged, uses operations that OpenVINO lacks, or has weights that are not numbers.
    """
    frame = read_frame(path) if path.suffix.lower() == ".onnx" else None
    if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
        raise BundleError(f"{path} has no {path.stem}.bin beside it, which holds its weights; copy both files")
    try:
        model = core().read_model(str(path)) if path.suffix.lower() == ".xml" else _convert(path)
    except Exception as error:
        # Besides RuntimeError, OpenVINO raises a class of its converter that is no public name.
        raise BundleError(_explain(path, str(error), frame)) from error
    half = _share_of_half(model) > 1 / 2
    _compute_in_single(model)
    check_numbers(
        model, str(path), "so the training or the export went wrong; download the file again, or export it again"
    )
    return PublishedNetwork(path, model, frame, half)


def _convert(path: Path) -> Any:
    """Convert with OpenVINO's converter, and undo what it does to the root logger: its level, a handler and a filter.

    Not `core().read_model`, which leaves each bias behind a Reshape of a ShapeOf, where NNCF passes over it.
    """
    root = logging.getLogger()
    kept = root.level, list(root.handlers), list(root.filters)
    try:
        return ov.convert_model(str(path))
    finally:
        root.setLevel(kept[0])
        root.handlers[:], root.filters[:] = kept[1:]


def _explain(path: Path, text: str, frame: OnnxFrame | None) -> str:
    """Explain in words why OpenVINO does not read a file."""
    missing = _UNSUPPORTED.search(text)
    if missing is None:
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
        return f"{path} cannot be read by OpenVINO: {last}; download it again, or export it again"
    operations = missing[1].strip()
    if _DEFORMABLE.search(operations):
        return (
            f"{path} uses {operations}, which OpenVINO does not read from ONNX. BiRefNet is built from its checkpoint "
            "instead: `worker model convert --checkpoint model.safetensors`"
        )
    if path.suffix.lower() == ".tflite":
        return f"{path} uses {operations}, which OpenVINO does not read from TensorFlow Lite; export it to ONNX instead"
    opset = f" (opset {frame.opset})" if frame else ""
    return (
        f"{path} uses {operations}, which OpenVINO does not have{opset}; export the network again with operations of "
        "the standard set, such as torch.onnx.export(..., opset_version=17)"
    )


def _share_of_half(model: Any) -> float:
    """Share of the weights that are stored in 16 bits."""
    sizes = {True: 0, False: 0}
    for node in constants(model):
        kind = node.get_element_type()
        if kind in (ov.Type.f16, ov.Type.bf16, ov.Type.f32):
            sizes[kind != ov.Type.f32] += int(np.prod(list(node.get_output_shape(0)), initial=1))
    return sizes[True] / max(sum(sizes.values()), 1)


def _compute_in_single(model: Any) -> None:
    """Turn every 16-bit float in the graph into 32 bits, exactly; how weights are stored is decided on saving."""
    halves = (ov.Type.f16, ov.Type.bf16)
    changed = False
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant" and node.get_element_type() in halves:
            single = ov.opset13.constant(np.asarray(node.get_data(), np.float32))
            single.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(single.output(0))
        elif kind == "Convert" and node.get_attributes().get("destination_type") in ("f16", "bf16"):
            node.set_destination_type(ov.Type.f32)
        elif kind == "Parameter" and node.get_element_type() in halves:
            node.set_element_type(ov.Type.f32)
        else:
            continue
        changed = True
    if changed:
        model.validate_nodes_and_infer_types()
