"""Exams for `worker bench quality`, built from packages of pictures: folders with pictures, true masks and facts."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from worker.bench.quality.exam import IMAGES, MASKS, write_facts
from worker.contract.errors import SetupError
from worker.training import eval_sets, library, rendered, sources
from worker.training.compose import Composite
from worker.training.sources import PicturePackage

OnProgress = Callable[[str], None]

_LIBRARY_NEEDS = ("scipy", "skimage", "OpenEXR")
_EVERY = 20


@dataclass(frozen=True)
class ExamKind:
    """How an exam is made."""

    description: str
    packages: tuple[PicturePackage, ...]
    count: int
    pictures: Callable[[Path, int, OnProgress], Iterator[Composite]]
    """Of the folder of downloads and the number of pictures."""


def build(name: str, folder: Path, downloads: Path, on_progress: OnProgress, *, count: int | None = None) -> str:
    """Build an exam; return a sentence about it.

    Args:
        name: key of `KINDS`.
        folder: of the exam; must not exist or be empty.
        downloads: folder of the packages, which are fetched if missing.
        on_progress: called with a line at a time.
        count: pictures; None for the usual number.

    Raises:
        SetupError: the folder is in use, or a tool or library is missing.
        SourceError: a package has another digest than the one listed.
    """
    kind = KINDS[name]
    if folder.is_dir() and any(folder.iterdir()):
        raise SetupError(f"{folder} is not empty; remove it, or choose another folder")
    for package in kind.packages:
        on_progress(f"{package.name}: {package.contents} ({package.license})")
    wanted = count or kind.count
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for kept in (IMAGES, MASKS):
        (part / kept).mkdir(parents=True)
    number = 0
    for number, one in enumerate(kind.pictures(downloads, wanted, on_progress), 1):
        Image.fromarray(one.pixels).save(part / IMAGES / f"{number:04}.png")
        Image.fromarray(one.alpha).save(part / MASKS / f"{number:04}.png")
        if number % _EVERY == 0:
            on_progress(f"{name}: {number} of {wanted} pictures")
    write_facts(part, kind.description, licence(kind))
    if folder.is_dir():
        folder.rmdir()
    part.rename(folder)
    return f"{name}: {number} pictures in {folder}"


def licence(kind: ExamKind) -> str:
    """Return the packages with their versions' files and licences, in one line."""
    return "; ".join(f"{one.file} ({one.license})" for one in kind.packages)


def _rendered(downloads: Path, count: int, _: OnProgress) -> Iterator[Composite]:
    return rendered.pictures(downloads, count)


def _stamps(downloads: Path, count: int, on_progress: OnProgress) -> Iterator[Composite]:
    return eval_sets.stamps(downloads, _library(downloads, on_progress), count)


def _composites(downloads: Path, count: int, on_progress: OnProgress) -> Iterator[Composite]:
    return eval_sets.composites(_library(downloads, on_progress), count)


def _library(downloads: Path, on_progress: OnProgress) -> Path:
    """Return the folder of the training library, which is built from its packages if it is missing.

    Raises:
        SetupError: a library of the extra `starter` is missing.
    """
    folder = downloads / "library"
    if folder.is_dir():
        return folder
    missing = [name for name in _LIBRARY_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f"this exam needs {', '.join(missing)}: pip install 'maskmill[starter]'")
    on_progress("the library of held-out subjects and photographs is built from its packages; this takes minutes")
    part = downloads / "library.part"
    shutil.rmtree(part, ignore_errors=True)
    library.build(downloads, part)
    part.rename(folder)
    return folder


_FOR_LIBRARY = (sources.CLIP_ART, sources.EMOJI, sources.ENVIRONMENTS)

KINDS = {
    "rendered": ExamKind(
        "three-dimensional models rendered in front of photographs, with exact masks; no candidate was trained on them",
        (sources.FURNITURE, sources.PLASMA_WALLPAPERS, sources.WALLPAPERS),
        rendered.COUNT,
        _rendered,
    ),
    "stamps": ExamKind(
        "photographs of objects with alpha in front of photographs; `starter` was changed once after a look at them",
        (sources.STAMPS, sources.WALLPAPERS, *_FOR_LIBRARY),
        eval_sets.COUNT,
        _stamps,
    ),
    "composites": ExamKind(
        "held-out subjects and backgrounds, composed as in the training of `starter`, which favours it",
        _FOR_LIBRARY,
        eval_sets.COUNT,
        _composites,
    ),
}
