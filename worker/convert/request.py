"""Input and output of `worker model convert`, and the checks that run before any work is done."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from worker.contract.errors import BundleNotFound, SettingsError, SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import Settings
from worker.convert import calibration
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.birefnet.tile_order import OrderDecision, TileOrder
from worker.convert.evaluate.agreement import Agreement
from worker.convert.quantisation_config import QuantisationConfig
from worker.model.format import writer
from worker.model.format.layout import SIZE_MULTIPLE

CHECKPOINT_FILE = "model.safetensors"
"""Name of the checkpoint in the published repository."""

_HUB = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class ConversionRequest:
    """What to convert, and to which variants."""

    checkpoint: str
    """File, or `hf://OWNER/NAME[@REVISION]`."""
    output: Path
    """Folder of the bundle."""
    sizes: tuple[InputSize, ...]
    precisions: tuple[str, ...]
    calibration_source: str | None = None
    """Folder or `s3://` prefix; None for the photographs of scikit-image."""
    calibration_images: int = calibration.DEFAULT_IMAGES
    """Most pictures to take from it."""
    without: frozenset[Rewrite] = frozenset()
    """Exact rewrites to leave out."""
    quantisation: QuantisationConfig = QuantisationConfig()  # noqa: RUF009 -- frozen
    force: bool = False
    """Keep variants that differ too much from FP32."""
    tile_order: TileOrder | None = None
    """Order of the image tiles that the checkpoint was trained with; None: found out."""
    name: str | None = None
    """Name of the network in the bundle; None: that of the checkpoint's preset, or of its backbone."""


@dataclass(frozen=True)
class ConversionProgress:
    """How far a conversion is."""

    step: int
    """Completed steps."""
    steps: int
    """Steps in all."""
    what: str
    """The current step in words: `512 int8: quantise`."""
    done: int = 0
    """Progress within the step, out of `total`."""
    total: int = 0
    """0 when not known."""


@dataclass(frozen=True)
class BuiltVariant:
    """One variant of the new bundle."""

    size: InputSize
    precision: str
    bytes: int
    """Size of the `.bin` file."""
    build_seconds: float
    compare_seconds: float
    peak_memory_mib: int
    agreement: Agreement | None
    """None for fp32, the reference."""
    complaint: str
    """Which limits of agreement it exceeds; empty if none."""

    @property
    def label(self) -> str:
        """Size and precision: `512 int8`."""
        return f"{self.size.short} {self.precision}"


@dataclass(frozen=True)
class ConversionResult:
    """The bundle that was written."""

    output: Path
    variants: tuple[BuiltVariant, ...]
    warnings: tuple[str, ...]
    tile_order: OrderDecision | None = None
    """With which order of image tiles the network was built, and why."""


OnProgress = Callable[[ConversionProgress], None]
"""Called at every step, and during a step when its progress is known."""


def validate(request: ConversionRequest) -> None:
    """Refuse a request that cannot succeed.

    Raises:
        BundleError: a precision is unknown, or there is none.
        BundleNotFound: the calibration folder does not exist.
        SettingsError: a size or the number of calibration images is invalid.
        SetupError: a required package is not installed.
    """
    writer.check_precisions(request.output, request.precisions)
    wrong = [size.short for size in request.sizes if not size.is_multiple_of(SIZE_MULTIPLE)]
    if wrong or not request.sizes:
        raise SettingsError(
            f"size {', '.join(wrong) or 'missing'}: height and width must be multiples of {SIZE_MULTIPLE}, such as "
            "1024 or 1440x2560"
        )
    if request.calibration_images < 1:
        raise SettingsError(f"{request.calibration_images} calibration images; use at least 1")
    calibration.check_folder(request.calibration_source)
    for package in ("safetensors", *(["nncf"] if "int8" in request.precisions else [])):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise SetupError(f"conversion requires {package}: pip install 'maskmill[convert]'") from error


def fetch_checkpoint(source: str, settings: Settings) -> Path:
    """Return the path of a checkpoint; download it from the hub through the cache if `source` is a repository.

    Raises:
        BundleNotFound: the file does not exist, or the repository is written incorrectly.
        ServiceError: the hub fails.
    """
    if not source.startswith("hf://"):
        path = Path(source)
        if not path.is_file():
            raise BundleNotFound(
                f"no checkpoint at {path}; give the path of {CHECKPOINT_FILE} or hf://ZhengPeng7/BiRefNet_lite"
            )
        return path
    match = _HUB.fullmatch(source)
    if match is None:
        raise BundleNotFound(f"{source!r} is not a repository; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    from worker.model.sources.hub_cache import download

    cache_dir = settings.model.cache_dir.expanduser()
    return Path(download(match["repo"], match["revision"], CHECKPOINT_FILE, cache_dir))
