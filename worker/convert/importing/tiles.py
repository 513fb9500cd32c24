"""Check the order of the image tiles of a finished BiRefNet, and put it right.

Exports of BiRefNet exist whose graph cuts the image in another order than the weights were trained with: their decoder
sees a scrambled picture. See `worker.convert.birefnet.tile_order`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError
from worker.convert.birefnet.tile_order import TileOrder, check_tiles, graph_order, reorder_tiles, tile_convolutions
from worker.convert.importing.pictures import Pictures
from worker.convert.importing.request import Decision, OnProgress
from worker.convert.importing.shaping import Shaped
from worker.convert.importing.verification import expected_levels, published_input
from worker.model.inference.facts import NetworkFacts, OutputStretch
from worker.model.inference.runtime import core

_JUDGED = 2
"""Photographs on which both orders are run."""


@dataclass(frozen=True)
class TileCheck:
    """The order of the tiles in a finished network."""

    cut: TileOrder
    """In which its graph cuts the image."""
    trained: TileOrder
    """In which its weights expect the tiles."""
    why: str

    @property
    def is_wrong(self) -> bool:
        """Whether the decoder sees a scrambled picture."""
        return self.cut is not self.trained

    @property
    def decision(self) -> Decision:
        """The order and its reason, for people."""
        found = f"the file cuts them by {self.cut}, which was put right" if self.is_wrong else "as the file cuts them"
        return Decision("image tiles", f"by {self.trained}, {found}", self.why)

    def put_right(self, model: Any) -> None:
        """Move the input channels of the four convolutions that read the tiles, if they are in the wrong order.

        Args:
            model: changed in place.
        """
        if self.is_wrong:
            reorder_tiles(model, self.trained)


def check(
    shaped: Shaped,
    facts: NetworkFacts,
    pictures: Pictures,
    requested: TileOrder | None = None,
    on_progress: OnProgress = lambda step: None,
) -> tuple[TileCheck | None, str]:
    """Find out in which order a network was trained; the network is not changed.

    Both orders are run on photographs, and the one with the crisper masks is taken. If they are equally crisp, the
    order of the file stays.

    Args:
        shaped: the network.
        facts: how it is fed.
        pictures: photographs of its size.
        requested: the order of its training, if known; nothing is run then.
        on_progress: called before each run.

    Returns:
        The check and a warning; no check if the network has no image tiles, or cuts them in an unknown order.

    Raises:
        BundleError: an order is requested, and the network has no image tiles or cuts them in an unknown order.
    """
    if requested is None and tile_convolutions(shaped.model) is None:
        return None, ""
    try:
        cut = graph_order(shaped.model)
    except BundleError as error:
        if requested:
            raise
        return None, f"the order of the image tiles could not be checked: {error}"
    if requested:
        return TileCheck(cut, requested, "as requested"), ""
    return _try_both(cut, shaped, facts, pictures, on_progress)


def _try_both(
    cut: TileOrder, shaped: Shaped, facts: NetworkFacts, pictures: Pictures, on_progress: OnProgress
) -> tuple[TileCheck, str]:
    runs = iter(TileOrder)
    shown = pictures.tensors[:_JUDGED]

    def masks_of(model: Any) -> npt.NDArray[np.float32]:
        on_progress(f"run with image tiles by {next(runs)}")
        return _masks(model, shaped, facts, shown)

    found = check_tiles(shaped.model, masks_of, len(shown))
    if not found.is_close:
        return TileCheck(cut, found.order, found.reason), ""
    doubt = (
        f"both orders of the image tiles give equally crisp masks ({found.reason}), so the order of the file stays; if "
        "the masks look wrong, import it again with --tile-order"
    )
    return TileCheck(cut, cut, f"undecided, {found.reason}"), doubt


def _masks(model: Any, shaped: Shaped, facts: NetworkFacts, shown: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Masks f32 `[n, H, W]`, 0 to 1, that the output of a model means; not stretched, which would hide soft ones."""
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    plain = replace(facts, output_stretch=OutputStretch.NONE)
    planes = replace(shaped, takes_nhwc=False)
    levels = [
        expected_levels(np.asarray(compiled(published_input(picture, planes, facts))[0][0, 0], np.float32), plain)
        for picture in shown
    ]
    return np.stack(levels).astype(np.float32) / np.float32(255)
