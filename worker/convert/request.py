"""What `worker model convert` is asked for and gives back, and the checks that need no work to be done first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from worker.contract.errors import BundleNotFound, SettingsError, SetupError
from worker.contract.settings import Settings
from worker.convert import calibration
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.evaluate.agreement import Agreement
from worker.convert.quantisation_config import Recipe
from worker.model.format import writer
from worker.model.format.layout import SIZE_MULTIPLE

CHECKPOINT_FILE = "model.safetensors"
"""In the published repository."""

_HUB = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True)
class Request:
    """What to make, from what."""

    checkpoint: str
    """File, or `hf://OWNER/NAME[@REVISION]`."""
    output: Path
    sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    pictures: str | None = None
    """Folder or `s3://` prefix; None for those of scikit-image."""
    images: int = calibration.DEFAULT_IMAGES
    without: frozenset[Rewrite] = frozenset()
    """Exact rewrites to leave out."""
    recipe: Recipe = Recipe()  # noqa: RUF009 -- frozen
    force: bool = False
    """Keep variants that disagree with FP32."""


@dataclass(frozen=True)
class Event:
    """Where the conversion is."""

    step: int
    """Steps behind it."""
    steps: int
    what: str
    """The step in words: `512 int8: quantise`."""
    done: int = 0
    total: int = 0
    """Within the step; 0 when not known."""


@dataclass(frozen=True)
class Built:
    """One variant of the new bundle."""

    size: int
    precision: str
    bytes: int
    """Of the `.bin`."""
    build_seconds: float
    compare_seconds: float
    peak_memory_mib: int
    agreement: Agreement | None
    """None for fp32 itself."""
    complaint: str
    """What is out of bounds; empty if nothing."""

    @property
    def label(self) -> str:
        """`512 int8`."""
        return f"{self.size} {self.precision}"


@dataclass(frozen=True)
class Report:
    """What was made."""

    output: Path
    variants: tuple[Built, ...]
    warnings: tuple[str, ...]


Watch = Callable[[Event], None]
"""Told of every step."""


def check(request: Request) -> None:
    """Refuse what cannot work.

    Raises:
        BundleError: No such precision.
        BundleNotFound: No such calibration folder.
        SettingsError: A size or the number of pictures makes no sense.
        SetupError: A package is missing.
    """
    writer.check_precisions(request.output, request.precisions)
    wrong = [str(size) for size in request.sizes if size <= 0 or size % SIZE_MULTIPLE]
    if wrong or not request.sizes:
        raise SettingsError(
            f"size {', '.join(wrong) or 'missing'}: a positive multiple of {SIZE_MULTIPLE} is needed, such as 1024"
        )
    if request.images < 1:
        raise SettingsError(f"{request.images} calibration images: at least 1 is needed")
    calibration.check_folder(request.pictures)
    for package in ("safetensors", *(["nncf"] if "int8" in request.precisions else [])):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise SetupError(f"converting needs {package}: pip install 'maskmill[convert]'") from error


def fetch_checkpoint(source: str, settings: Settings) -> Path:
    """The file itself, or the one of a hub repository, through the cache.

    Raises:
        BundleNotFound: no such file, or the text names no repository.
        ServiceError: the hub.
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
        raise BundleNotFound(f"{source!r} names no repository; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    from worker.model.sources.hub_cache import download

    cache_dir = settings.model.cache_dir.expanduser()
    return Path(download(match["repo"], match["revision"], CHECKPOINT_FILE, cache_dir))
