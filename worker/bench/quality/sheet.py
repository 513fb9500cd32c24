"""A contact sheet: rows are pictures; columns are the picture, its true mask, and the mask of every network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from worker.bench.quality.report import NetworkRow
from worker.contract.errors import SetupError
from worker.contract.settings import LimitSettings
from worker.convert.evaluate.pictures import read

Grey = NDArray[np.uint8]

CELL = 180
"""Longest side of a picture on the sheet, in pixels."""
_GAP, _LINE, _HEAD = 8, 18, 44
_PAPER, _INK, _FRAME = "white", "#202428", "#5a6470"
_FONT_SIZE = 13


@dataclass(frozen=True)
class Sheet:
    """A finished sheet."""

    image: Image.Image

    def write(self, path: Path) -> Path:
        """Write it as PNG; return the path.

        Raises:
            SetupError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.image.save(path, "PNG", optimize=True)
        except OSError as error:
            raise SetupError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
        return path


def make(
    rows: Sequence[tuple[Path, Grey, int]],
    columns: Mapping[str, Callable[[int, tuple[int, ...]], Grey]],
    networks: Sequence[NetworkRow],
    limits: LimitSettings,
) -> Sheet:
    """Draw the sheet.

    Args:
        rows: picture, true mask and index in the exam.
        columns: label of a network -> its mask by index and shape `(height, width)`.
        networks: their scores, which are written below the masks.
        limits: limits of a picture.

    Raises:
        SourceError: a picture cannot be read.
    """
    ious = {row["label"]: [one["iou"] for one in row["pictures"]] for row in networks}
    names = [row["picture"] for row in networks[0]["pictures"]] if networks else []
    width = _GAP + (len(columns) + 2) * (CELL + _GAP)
    image = Image.new("RGB", (width, _HEAD + len(rows) * (CELL + _LINE + _GAP)), _PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    for column, heading in enumerate(("picture", "true mask", *columns)):
        draw.multiline_text((_left(column), _GAP), _wrapped(heading), fill=_INK, font=font, spacing=2)
    for number, (path, truth, index) in enumerate(rows):
        top = _HEAD + number * (CELL + _LINE + _GAP)
        masks = {label: mask(index, truth.shape) for label, mask in columns.items()}
        captions = [names[index] if names else path.name, "", *(f"IoU {ious[label][index]:.3f}" for label in masks)]
        cells = [read(path, limits).rgb, *(Image.fromarray(grey) for grey in (truth, *masks.values()))]
        for column, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
            _paste(image, draw, cell, (_left(column), top))
            draw.text((_left(column), top + CELL), caption, fill=_INK, font=font)
    return Sheet(image)


def _left(column: int) -> int:
    return _GAP + column * (CELL + _GAP)


def _paste(image: Image.Image, draw: ImageDraw.ImageDraw, cell: Image.Image, place: tuple[int, int]) -> None:
    small = ImageOps.contain(cell.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)
    image.paste(small, place)
    right, bottom = place[0] + small.width - 1, place[1] + small.height - 1
    draw.rectangle((*place, right, bottom), outline=_FRAME)


def _wrapped(heading: str) -> str:
    """Return a heading in at most two lines."""
    half = CELL // 8
    if len(heading) <= half:
        return heading
    cut = heading.rfind(" ", 0, half)
    cut = cut if cut > 0 else half
    return f"{heading[:cut]}\n{heading[cut:].strip()[:half]}"
