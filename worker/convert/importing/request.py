"""What to import, and the report of an import. Nothing here loads OpenVINO."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from worker.contract.errors import SettingsError
from worker.contract.input_size import InputSize
from worker.convert import peak_memory
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.calibration import check_folder
from worker.convert.importing.families import Family
from worker.convert.int8 import offer
from worker.model.format.layout import SIZE_MULTIPLE
from worker.model.format.manifest import PeakMemory

ActivationChoice = Literal["auto", "none", "sigmoid"]
"""`auto`: decided from the graph and two pictures. `none`: the output is a probability. `sigmoid`: it is logits."""

Commercial = Literal["yes", "no", "unclear"]

Precisions = tuple[Literal["fp32", "fp16", "int8"], ...]

_LARGEST_LEVEL = 255.0
_PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "Unlicense")
"""Licences that permit commercial use of weights without further conditions than a notice."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class LicenceFacts:
    """The licence of the weights, as their source states it."""

    id: str | None = None
    """SPDX identifier; None if no source states one."""
    text: str = ""
    """What the source says, in a sentence or two."""
    commercial: Commercial = "unclear"
    """Whether it permits commercial use."""

    @classmethod
    def of(cls, spdx: str | None) -> LicenceFacts:
        """Return what an SPDX identifier says about commercial use."""
        if spdx in _PERMISSIVE:
            return cls(spdx, "", "yes")
        return cls(spdx, "", "no" if spdx and "-NC" in spdx else "unclear")

    @property
    def warning(self) -> str:
        """A sentence to read before use; empty if the licence permits commercial use."""
        if self.commercial == "yes":
            return ""
        if self.commercial == "no":
            return f"the licence of the weights, {self.id or 'unnamed'}, forbids commercial use. {self.text}".strip()
        stated = f"is {self.id}" if self.id else "is not stated"
        return (
            f"the licence of the weights {stated}, and whether it permits commercial use is unclear. "
            f"{self.text or 'Ask where the file came from'}"
        )


@dataclass(frozen=True)
class ImportRequest:
    """What to import. Fields that are None follow from the file or from its family."""

    source: Path
    """An `.onnx` file, an `.xml` of an OpenVINO IR, a `.tflite` file, or a folder that holds one of them."""
    output: Path
    """Folder of the bundle."""
    name: str | None = None
    """First part of the file names in the bundle; None for the name of the file."""
    family: Family | None = None
    size: InputSize | None = None
    mean: tuple[float, float, float] | None = None
    scale: tuple[float, float, float] | None = None
    """Mean and deviation of each channel. Values up to 1 count on the scale 0 to 1, larger ones on 0 to 255; both are
    on the same scale."""
    input_scaling: Literal["fixed", "picture_maximum"] | None = None
    output_name: str | None = None
    """The output that holds the mask; None for the first."""
    activation: ActivationChoice = "auto"
    tile_order: TileOrder | None = None
    """BiRefNet: the order of the image tiles that its weights were trained with; None to find out."""
    licence: LicenceFacts = LicenceFacts()
    precisions: Precisions = ()
    """Empty: `fp32`, or `fp16` for a file whose weights have 16 bits. `int8` is written only if it holds."""
    calibration: str | None = None
    """Folder of photographs for INT8; None for those of scikit-image."""
    measure_memory: bool = True
    """Whether to measure the peak memory, in one child process per arithmetic and number of streams."""

    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and deviation on the scale 0 to 255; None if neither is given.

        Raises:
            SettingsError: only one is given, or a deviation is not positive.
        """
        if self.mean is None and self.scale is None:
            return None
        if self.mean is None or self.scale is None:
            raise SettingsError("mean and deviation belong together: give both --mean and --std")
        if min(self.scale) <= 0:
            raise SettingsError(f"--std {' '.join(map(str, self.scale))}: every deviation must be above 0")
        factor = _LARGEST_LEVEL if max(*map(abs, self.mean), *self.scale) <= 1 else 1.0
        return tuple(value * factor for value in self.mean), tuple(value * factor for value in self.scale)

    def check(self) -> None:
        """Check that a bundle can hold a network of the requested name and size, in the requested precisions.

        Raises:
            SettingsError: the name has other characters, a side is not a multiple of 32, or pictures are given without
                INT8.
            BundleNotFound: the folder of pictures does not exist.
            SetupError: INT8 is requested, and NNCF is not installed.
        """
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise SettingsError(f"--name {self.name!r}: use letters, digits, dots, dashes and underscores")
        if self.calibration is not None and "int8" not in self.precisions:
            raise SettingsError("--calibration is for INT8: add int8 to --precision, such as --precision fp32,int8")
        check_folder(self.calibration)
        if "int8" in self.precisions:
            offer.check_installed()
        if self.size and (self.size.height % SIZE_MULTIPLE or self.size.width % SIZE_MULTIPLE):
            raise SettingsError(f"--size {self.size}: both sides must be multiples of {SIZE_MULTIPLE}, such as 512x512")


@dataclass(frozen=True)
class Decision:
    """One fact about the network, and where it comes from."""

    what: str
    value: str
    why: str

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.what}: {self.value} ({self.why})"


@dataclass(frozen=True)
class Verification:
    """The comparison of the bundle's masks with those of another runtime."""

    reference: str
    """What computed the other masks: `ONNX Runtime 1.32.0`; empty if nothing did."""
    pictures: int
    source: str
    """Where the pictures come from."""
    max_levels: int | None
    """Largest difference at any pixel, in grey levels of 255; None if not verified."""
    why_not: str = ""
    """Why nothing was compared; empty if the bundle is verified."""

    def __str__(self) -> str:
        """Return one line for people."""
        if self.max_levels is None:
            return f"not verified: {self.why_not}"
        return (
            f"verified: masks within {self.max_levels} of 255 grey levels of {self.reference}, on {self.pictures} "
            f"{self.source}"
        )


@dataclass(frozen=True)
class ImportReport:
    """The bundle that was written."""

    output: Path
    name: str
    size: InputSize
    precisions: tuple[str, ...]
    decisions: tuple[Decision, ...]
    verification: Verification
    memory: dict[str, dict[str, PeakMemory]]
    """Precision -> arithmetic of the float part -> peak memory; empty if not measured."""
    warnings: tuple[str, ...]
    int8: dict[str, Any] | None = None
    """The steps of the quantisation and their figures, also if INT8 is not offered; None if it was not requested."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self) | {
            "output": str(self.output),
            "size": str(self.size),
            "memory": peak_memory.manifest_section(self.memory),
        }


OnProgress = Callable[[str], None]
"""Called with each step in words."""
