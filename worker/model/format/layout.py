"""File names of a bundle, such as `openvino_int8/birefnet_lite_1440x2560_int8.xml` and the `.bin` beside it.

The height comes first, as in the shape of the input: 1440x2560 is wider than high.

Pure text without file access: the same grammar reads a folder, an S3 listing and a hub repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from worker.contract.input_size import InputSize

PRECISIONS = ("fp32", "fp16", "int8", "int8wo")
"""Stored precisions, most exact first; each has the folder `openvino_{precision}`. `int8wo` has INT8 weights and float
activations."""

MANIFEST_NAME = "manifest.json"
"""Optional file beside the precision folders: see `worker.model.format.manifest`."""

SIZE_MULTIPLE = 32
"""Height and width of an input are multiples of this: the encoder halves the image five times."""

_SUFFIXES = frozenset({"xml", "bin"})
_PATH = re.compile(
    rf"openvino_(?P<folder>{'|'.join(PRECISIONS)})/"
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})_(?P<height>[1-9][0-9]{1,4})x(?P<width>[1-9][0-9]{1,4})"
    rf"_(?P<precision>{'|'.join(PRECISIONS)})\.(?P<suffix>{'|'.join(_SUFFIXES)})"
)
_MODEL_FILE = re.compile(rf"openvino_[^/]*/.*|[^/]*\.({'|'.join(_SUFFIXES)})|(.*/)?[^/]*\.(onnx|tflite)")


@dataclass(frozen=True)
class Candidate:
    """A variant found in a listing. Paths are relative to the root of the bundle, with forward slashes."""

    name: str
    size: InputSize
    """Height and width of the input in pixels."""

    precision: str
    missing: str = ""
    """Path of the absent file if only one of the two is listed; empty if both are."""

    @property
    def xml(self) -> str:
        """Path of the graph."""
        return f"openvino_{self.precision}/{self.name}_{self.size}_{self.precision}.xml"

    @property
    def bin(self) -> str:
        """Path of the weights."""
        return f"{self.xml.removesuffix('.xml')}.bin"

    @property
    def label(self) -> str:
        """Name for messages: `birefnet_lite 1024 int8`, `birefnet_lite 1440x2560 int8`."""
        return f"{self.name} {self.size.short} {self.precision}"


@dataclass(frozen=True)
class Listing:
    """The contents of a bundle source, sorted into variants."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...] = ()
    """Files that look like model files but whose names do not follow the grammar."""

    has_manifest: bool = False

    def labels(self) -> str:
        """Return the labels of all variants as one line for messages."""
        return ", ".join(c.label for c in self.candidates) or "no variant"


def read_listing(paths: Iterable[str]) -> Listing:
    """Sort the files of a bundle into variants.

    Args:
        paths: all files, relative to the root of the bundle, with forward slashes.

    Returns:
        Candidates ordered by name, size and precision (most exact first). `left_out` holds the files in a precision
        folder, and the IR files at the top level, whose name does not follow the grammar, contradicts its folder or
        gives an impossible size. Other files, such as a README, are ignored.
    """
    found: dict[tuple[str, InputSize, str], set[str]] = {}
    left_out: list[str] = []
    has_manifest = False
    for path in paths:
        match = _PATH.fullmatch(path)
        if match and _is_consistent(match):
            key = match["name"], _size(match), match["precision"]
            found.setdefault(key, set()).add(match["suffix"])
        elif path == MANIFEST_NAME:
            has_manifest = True
        elif _MODEL_FILE.fullmatch(path):
            left_out.append(path)
    candidates = [_candidate(*key, found[key]) for key in found]
    candidates.sort(key=lambda c: (c.name, c.size, PRECISIONS.index(c.precision)))
    return Listing(tuple(candidates), tuple(sorted(left_out)), has_manifest)


def _size(match: re.Match[str]) -> InputSize:
    return InputSize(int(match["height"]), int(match["width"]))


def _is_consistent(match: re.Match[str]) -> bool:
    return _size(match).is_multiple_of(SIZE_MULTIPLE) and match["folder"] == match["precision"]


def _candidate(name: str, size: InputSize, precision: str, suffixes: set[str]) -> Candidate:
    complete = Candidate(name, size, precision)
    paths = {"xml": complete.xml, "bin": complete.bin}
    missing = next((paths[suffix] for suffix in _SUFFIXES - suffixes), "")
    return Candidate(name, size, precision, missing)
