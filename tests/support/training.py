"""A small library of drawn subjects and photographs that needs no packages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from worker.standalone.photographs import copy_photographs
from worker.training.library import Library, PackedPictures, Pixels

_RED = (210, 40, 30, 255)


def packed(pictures: Sequence[Pixels]) -> PackedPictures:
    """Pack pictures in memory."""
    flat = np.concatenate([np.ascontiguousarray(one).reshape(-1) for one in pictures])
    return PackedPictures(flat, np.array([one.shape for one in pictures], np.int64))


def small_library(folder=None) -> Library:
    """Return a disc, a bottle and a star with a drawn background, or with the demo photographs copied to `folder`."""
    photographs = [np.random.default_rng(1).integers(0, 256, (80, 90, 3)).astype(np.uint8)]
    if folder is not None:
        photographs = [
            np.asarray(Image.open(path).convert("RGB").resize((256, 256))) for path in copy_photographs(folder)
        ]
    return Library(packed([_disc(), _bottle(), _star()]), packed(photographs))


def _disc() -> Pixels:
    return _drawn(lambda d: d.ellipse((0, 0, 255, 255), fill=_RED))


def _bottle() -> Pixels:
    def draw(d: ImageDraw.ImageDraw) -> None:
        d.rounded_rectangle((60, 100, 195, 255), 20, fill=_RED)
        d.rectangle((105, 0, 150, 120), fill=_RED)

    return _drawn(draw)


def _star() -> Pixels:
    turns = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2, 55, 127)
    return _drawn(
        lambda d: d.polygon(
            [(128 + r * np.sin(t), 128 - r * np.cos(t)) for t, r in zip(turns, reach, strict=True)], fill=_RED
        )
    )


def _drawn(draw) -> Pixels:
    image = Image.new("RGBA", (256, 256))
    draw(ImageDraw.Draw(image))
    return np.asarray(image.crop(image.getbbox()))
