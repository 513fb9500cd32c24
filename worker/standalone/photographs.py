"""Real photographs for a first run, taken from the package scikit-image.

Each is in the public domain or has no known restrictions, according to the listing in the package.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from worker.contract.errors import StandaloneError

PHOTOGRAPHS = {
    "astronaut.png": "Eileen Collins, NASA, public domain",
    "camera.png": "photographer with a tripod, CC0",
    "chelsea.png": "a cat, CC0",
    "coffee.png": "a cup of espresso, CC0",
    "coins.png": "Greek coins from Pompeii, Brooklyn Museum, no known restrictions",
    "hubble_deep_field.jpg": "galaxies, NASA, public domain",
    "retina.jpg": "fundus of an eye, CC0",
    "rocket.jpg": "launch of a Falcon 9, SpaceX, public domain",
}
"""File name -> subject and licence."""

SAMPLES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")
"""The photographs for a first run: those with a subject. Galaxies and an eye's fundus have none to cut out."""


def copy_photographs(folder: Path, names: Sequence[str] = tuple(PHOTOGRAPHS)) -> list[Path]:
    """Copy the photographs to a folder and return their paths; existing files are not overwritten.

    Args:
        folder: created if it is absent.
        names: of the photographs, keys of `PHOTOGRAPHS`.

    Raises:
        StandaloneError: scikit-image is not installed, or does not contain the photographs.
    """
    package = importlib.util.find_spec("skimage")  # found, not imported: that would load SciPy
    if package is None or not package.submodule_search_locations:
        raise StandaloneError("the photographs are part of scikit-image: pip install 'maskmill[demo]'")
    source = Path(package.submodule_search_locations[0]) / "data"
    missing = [name for name in names if not (source / name).is_file()]
    if missing:
        raise StandaloneError(f"this scikit-image lacks {', '.join(missing)}: pip install 'maskmill[demo]'")
    folder.mkdir(parents=True, exist_ok=True)
    copied = []
    for name in names:
        target = folder / name
        if not target.exists():
            part = folder / f".maskmill-{secrets.token_hex(6)}"
            with (source / name).open("rb") as original, part.open("xb") as copy:  # never through a link
                shutil.copyfileobj(original, copy)
            part.replace(target)
        copied.append(target)
    return copied
