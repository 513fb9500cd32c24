"""Picture files of every kind, written byte by byte from known pixels, with what a reader must find in them.

    pixels as stored ── writer of the format ──> file
           └── rules of the format ────────────> colour, transparency, profile that `decode` must return

The writers and the rules are independent of the reader and of Pillow, except where only a codec can write a format
(JPEG, WebP, AVIF). Every run makes the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from support.picture_files.base import PictureFile
from support.picture_files.bmp import bmp_files
from support.picture_files.coded import avif_files, jpeg_files, webp_files
from support.picture_files.gif import gif_files
from support.picture_files.png import png_files
from support.picture_files.tiff import tiff_files

FORMATS: dict[str, Callable[[], Iterator[PictureFile]]] = {
    "png": png_files,
    "tiff": tiff_files,
    "jpeg": jpeg_files,
    "webp": webp_files,
    "gif": gif_files,
    "bmp": bmp_files,
    "avif": avif_files,
}
