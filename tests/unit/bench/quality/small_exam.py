"""Three pictures of 100 x 80 with a box of 40 x 40 each; true masks as 0/255, 0/1 and 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = {"a": (np.uint8, 255), "b": (np.uint8, 1), "c": (np.uint16, 65535)}


def inside(left: int = 20) -> np.ndarray:
    mask = np.zeros((80, 100), bool)
    mask[20:60, left : left + 40] = True
    return mask


def write_exam(folder: Path) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for stem, (dtype, high) in LEVELS.items():
        pixels = np.where(inside()[..., None], (200, 40, 30), (235, 235, 235)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{stem}.png")
        Image.fromarray((inside() * high).astype(dtype)).save(folder / f"masks/{stem}.png")
    return folder
