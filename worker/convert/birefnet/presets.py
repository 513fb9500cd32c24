"""The published checkpoints of the BiRefNet family, as data.

Sizes are height x width of the training input; the authors write width x height. All checkpoints take
ImageNet-normalised RGB, give one map of logits, and squeeze the picture to the input size without keeping its aspect
ratio.

Sources: the repository `ZhengPeng7/BiRefNet` (MIT) and its history, and the pages of the checkpoints on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.contract.input_size import InputSize
from worker.convert.birefnet.layout import SWIN_L, SWIN_T, Backbone
from worker.convert.birefnet.tile_order import TileOrder


@dataclass(frozen=True)
class Preset:
    """One published checkpoint."""

    name: str
    """Name in commands and catalogues: `birefnet-hr`. File names have underscores instead."""
    repository: str
    """`OWNER/NAME` on the Hugging Face hub."""
    backbone: Backbone
    sizes: tuple[InputSize, ...]
    """The training size first. Other multiples of 32 run too, with lower quality."""
    tile_order: TileOrder | None
    """Order of the image tiles in training; None if unknown."""
    licence: str = "MIT"
    """SPDX expression, or the licence in words."""
    commercial: bool = True
    """Whether the licence of the weights allows commercial use."""
    sha256_prefix: str = ""
    """Leading digits of the checkpoint's SHA-256, where they are known."""

    @property
    def model_name(self) -> str:
        """Name of the network in the file names of a bundle."""
        return self.name.replace("-", "_")


def _square(*sides: int) -> tuple[InputSize, ...]:
    return tuple(InputSize.square(side) for side in sides)


_OWNER = "ZhengPeng7"
_2K = InputSize(1440, 2560)
_OLD, _NEW = TileOrder.COLUMNS, TileOrder.ROWS

PRESETS = (
    Preset("birefnet-lite", f"{_OWNER}/BiRefNet_lite", SWIN_T, _square(1024, 512), _OLD, sha256_prefix="4417d897"),
    Preset("birefnet-lite-2k", f"{_OWNER}/BiRefNet_lite-2K", SWIN_T, (_2K,), _OLD),
    Preset("birefnet-lite-matting", f"{_OWNER}/BiRefNet_lite-matting", SWIN_T, _square(1024), None),
    Preset("birefnet-general", f"{_OWNER}/BiRefNet", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-legacy", f"{_OWNER}/BiRefNet-legacy", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-portrait", f"{_OWNER}/BiRefNet-portrait", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-matting", f"{_OWNER}/BiRefNet-matting", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-dis5k", f"{_OWNER}/BiRefNet-DIS5K", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-dis5k-tr-tes", f"{_OWNER}/BiRefNet-DIS5K-TR_TEs", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-cod", f"{_OWNER}/BiRefNet-COD", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-hrsod", f"{_OWNER}/BiRefNet-HRSOD", SWIN_L, _square(1024), _OLD),
    Preset("birefnet-512", f"{_OWNER}/BiRefNet_512x512", SWIN_L, _square(512), None),
    Preset("birefnet-hr", f"{_OWNER}/BiRefNet_HR", SWIN_L, _square(2048), _NEW),
    Preset("birefnet-hr-matting", f"{_OWNER}/BiRefNet_HR-matting", SWIN_L, _square(2048), _NEW),
    Preset("birefnet-dynamic", f"{_OWNER}/BiRefNet_dynamic", SWIN_L, _square(1024, 2048), _NEW),
    Preset("birefnet-dynamic-matting", f"{_OWNER}/BiRefNet_dynamic-matting", SWIN_L, _square(1024, 2048), _NEW),
    Preset("rmbg-2", "briaai/RMBG-2.0", SWIN_L, _square(1024), _OLD, "CC BY-NC 4.0", commercial=False),
)
"""`birefnet-dynamic` was trained with both sides between 256 and 2304; its sizes here are two of them."""

DEFAULT_SIZES = _square(1024, 512)
"""Sizes of a checkpoint that is not in the table."""

_HUB = "hf://"


def find_preset(source: str, sha256: str = "") -> Preset | None:
    """Return the preset of a checkpoint, or None.

    Args:
        source: File, name of a preset, or `hf://OWNER/NAME[@REVISION]`.
        sha256: Digest of the file; known ones identify a copy under another name.
    """
    repository = source.removeprefix(_HUB).partition("@")[0] if source.startswith(_HUB) else ""
    for preset in PRESETS:
        if source == preset.name or repository.lower() == preset.repository.lower():
            return preset
        if preset.sha256_prefix and sha256.startswith(preset.sha256_prefix):
            return preset
    return None
