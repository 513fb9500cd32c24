"""Read the frame of an ONNX file: its opset, the operations it uses, and the files that its weights are in.

An ONNX file is one Protocol Buffers message. Only its frame is read here, so the package `onnx` is not needed, and
weights are skipped. Field numbers are those of `onnx.proto` (ModelProto, GraphProto, NodeProto, TensorProto).
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import BundleError

NEWEST_OPSET = 28
"""Newest operator set of the domain `ai.onnx` that ONNX Runtime 1.32 supports. OpenVINO reads newer ones without a
word, and nothing could check what it made of them."""

_STANDARD_DOMAINS = ("", "ai.onnx")
_QUANTISED = frozenset(
    {"DynamicQuantizeLinear", "QuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
_GIT_LFS = b"version https://git-lfs"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class OnnxFrame:
    """What an ONNX file says about itself."""

    producer: str
    """Program and version that wrote it, such as `pytorch 1.9`."""
    opset: int
    """Version of the standard operator set."""
    operations: Counter[str]
    """How often each operation occurs, with its domain unless that is the standard one."""
    external_files: tuple[str, ...]
    """Files that hold weights, relative to the folder of the ONNX file."""

    @property
    def is_quantised(self) -> bool:
        """Whether it computes with integers, so that another runtime rounds differently."""
        return any(kind.rpartition(".")[2] in _QUANTISED for kind in self.operations)


def read_frame(path: Path) -> OnnxFrame:
    """Read the frame of an ONNX file and check that OpenVINO and ONNX Runtime can be expected to read the rest.

    Raises:
        BundleError: it is not an ONNX file, a file with weights is missing, or its opset is too new.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise BundleError(f"{path} is empty; download it again")
            # Not closed here: the traceback of an error holds pieces of it, and closing would raise another error.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            frame = _parse(path, data)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    _check_external_files(path, frame.external_files)
    if frame.opset > NEWEST_OPSET:
        raise BundleError(
            f"{path} uses opset {frame.opset}, and {NEWEST_OPSET} is the newest that can be checked; export the "
            "network again with an older one, such as torch.onnx.export(..., opset_version=17)"
        )
    return frame


def _parse(path: Path, data: mmap.mmap) -> OnnxFrame:
    if data[: len(_GIT_LFS)] == _GIT_LFS:
        raise BundleError(
            f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` or download the file"
        )
    producer, opset, graph = ["", ""], 0, None
    try:
        for field, value in _fields(memoryview(data)):
            if field in (2, 3):  # producer_name, producer_version
                producer[field - 2] = _text(value)
            elif field == 7:  # noqa: PLR2004 -- graph
                graph = _graph(value)
            elif field == 8:  # noqa: PLR2004 -- opset_import
                opset = max(opset, _opset(value))
    except (ValueError, IndexError) as error:
        raise BundleError(f"{path} is not an ONNX file, or it is cut short; download it again") from error
    if graph is None or not graph[0]:
        raise BundleError(f"{path} is not an ONNX file, or it is cut short; download it again")
    return OnnxFrame(" ".join(producer).strip(), opset, graph[0], tuple(sorted(graph[1])))


def _graph(value: int | memoryview) -> tuple[Counter[str], set[str]]:
    """Operations, and files with weights."""
    operations: Counter[str] = Counter()
    files: set[str] = set()
    for field, inner in _fields(value):
        if field == 1:  # node
            operations[_operation(inner)] += 1
        elif field == 5:  # noqa: PLR2004 -- initializer
            files |= _external_file(inner)
    return operations, files


def _operation(value: int | memoryview) -> str:
    kind = domain = ""
    for field, inner in _fields(value):
        if field == 4:  # noqa: PLR2004 -- op_type
            kind = _text(inner)
        elif field == 7:  # noqa: PLR2004 -- domain
            domain = _text(inner)
    return kind if domain in _STANDARD_DOMAINS else f"{domain}.{kind}"


def _external_file(value: int | memoryview) -> set[str]:
    """The file of a tensor that is stored outside: the value of `location` among its entries."""
    for field, inner in _fields(value):
        if field == 13:  # noqa: PLR2004 -- external_data
            entry = dict(_fields(inner))
            if _text(entry.get(1, b"")) == "location":
                return {_text(entry.get(2, b""))}
    return set()


def _opset(value: int | memoryview) -> int:
    entry = dict(_fields(value))
    version = entry.get(2, 0)
    return version if isinstance(version, int) and _text(entry.get(1, b"")) in _STANDARD_DOMAINS else 0


def _text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise ValueError("a number where text belongs")
    return bytes(value).decode("utf-8")


def _fields(message: int | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: number, and an integer or the bytes.

    Raises:
        ValueError: the bytes are not a message.
    """
    if isinstance(message, int):
        raise ValueError("a number where a message belongs")
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32, _BYTES):
            size, at = _varint(message, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[kind], at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if not number or at > len(message):
            raise ValueError("the message is cut short")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 -- the last byte has no continuation bit
            return result, at
        shift += 7
        if shift > 63:  # noqa: PLR2004 -- 64 bits at most
            raise ValueError("a number of more than 64 bits")


def _check_external_files(path: Path, files: tuple[str, ...]) -> None:
    """Check that the files with weights lie beside the ONNX file.

    Raises:
        BundleError: one is missing, or lies outside the folder.
    """
    folder = path.parent.resolve()
    for name in files:
        if not (folder / name).resolve().is_relative_to(folder):
            raise BundleError(f"{path} keeps weights in {name}, outside its folder; refusing to read it")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise BundleError(
            f"{path} keeps its weights in {', '.join(missing)}, which is not beside it; copy that file from where the "
            "ONNX file came from into the same folder, under this name"
        )
