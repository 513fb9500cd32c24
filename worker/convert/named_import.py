"""Turn the published file of a network into a bundle: the one place where the catalogue meets the importers.

.onnx, .xml            worker.convert.importing
.safetensors, .pth     worker.convert.variants, which builds BiRefNet from its checkpoint
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import Settings
from worker.convert import variants
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.int8 import offer
from worker.convert.request import ConversionRequest
from worker.model.sources.catalogue import NetworkEntry

OnStep = Callable[[str], None]
"""Called at each step of a preparation with its name in words."""

_CHECKPOINTS = frozenset({".safetensors", ".pth"})
_IMPORTING = "worker.convert.importing"


@dataclass(frozen=True)
class ImportOrder:
    """What to import, and where to write the bundle."""

    entry: NetworkEntry
    file: Path
    """The published file, verified."""
    output: Path
    """Folder of the bundle; absent, or a bundle to replace."""
    size: InputSize
    sha256: str
    """Digest of the file, for the bundle's facts."""
    source: str
    """Where the file came from, for the bundle's facts."""
    settings: Settings

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions to write. The importer tries INT8 unless it is known not to hold, and writes it only if it holds.

        A checkpoint is built at a large size, which takes long to quantise: it is tried only where it is known to hold.
        """
        known, is_checkpoint = self.entry.quantisation.int8, self.file.suffix in _CHECKPOINTS
        is_tried = known in {"yes", "with_care"} or (known == "unknown" and not is_checkpoint)
        return ("fp32", "int8") if is_tried else ("fp32",)


def check_installed(entry: NetworkEntry) -> None:
    """Check that the packages for this kind of file are installed, before anything is downloaded.

    Raises:
        SetupError: one is missing.
    """
    if Path(entry.file).suffix in _CHECKPOINTS and importlib.util.find_spec("safetensors") is None:
        raise SetupError(f"{entry.name} is built from a checkpoint: pip install 'maskmill[convert]'")
    if Path(entry.file).suffix not in _CHECKPOINTS and importlib.util.find_spec("onnxruntime") is None:
        raise SetupError(f"{entry.name} is imported from {entry.file}: pip install 'maskmill[import]'")


def precisions_here(order: ImportOrder, on_step: OnStep) -> tuple[str, ...]:
    """Return the precisions of an order that this installation can make, and announce what is left out."""
    if "int8" in order.precisions and (missing := _missing_for_int8()):
        on_step(f"INT8 is left out, because {missing}; then fetch {order.entry.name} again with --refresh")
        return tuple(precision for precision in order.precisions if precision != "int8")
    return order.precisions


def _missing_for_int8() -> str:
    if not offer.is_installed():
        return "it requires NNCF: pip install 'maskmill[convert]'"
    if importlib.util.find_spec("skimage") is None:
        return "it requires the photographs of scikit-image: pip install 'maskmill[import]'"
    return ""


def import_file(order: ImportOrder, on_step: OnStep) -> None:
    """Write the bundle of a published file.

    Raises:
        BundleError: the file is not of the network that the entry describes.
        SetupError: a package is missing.
    """
    if order.file.suffix in _CHECKPOINTS:
        _build(order, on_step)
    else:
        _import(order, on_step)


def _build(order: ImportOrder, on_step: OnStep) -> None:
    """Build a network of the BiRefNet family from its checkpoint."""
    on_step(f"building {order.entry.name}, which was trained with image tiles ordered by {order.entry.tile_order}")
    order_of_tiles = TileOrder(order.entry.tile_order) if order.entry.tile_order else None
    request = ConversionRequest(
        checkpoint=str(order.file),
        output=order.output,
        sizes=(order.size,),
        precisions=precisions_here(order, on_step),
        tile_order=order_of_tiles,
        name=order.entry.name,
    )
    variants.convert(request, order.settings, lambda progress: on_step(progress.what))


def _import(order: ImportOrder, on_step: OnStep) -> None:
    """Import an ONNX file or an OpenVINO IR."""
    try:
        importing: Any = importlib.import_module(_IMPORTING)
    except ModuleNotFoundError as error:
        raise SetupError(
            f"{order.entry.name} is imported from {order.file.name}: pip install 'maskmill[import]'"
        ) from error
    entry = order.entry
    request = importing.ImportRequest(
        source=order.file,
        output=order.output,
        name=entry.name,
        family=importing.Family(entry.family),
        size=order.size,
        mean=entry.normalisation.mean,
        scale=entry.normalisation.deviation,
        input_scaling=entry.normalisation.input_scaling,
        output_name=entry.output.name,
        precisions=precisions_here(order, on_step),
        activation="none" if entry.output.activation == "probability" else "sigmoid",
        tile_order=TileOrder(entry.tile_order) if entry.tile_order else None,
        licence=importing.LicenceFacts(
            id=entry.licence.id, text=entry.licence.text, commercial=entry.licence.commercial
        ),
    )
    importing.import_network(request, on_step)
