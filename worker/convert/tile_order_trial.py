"""Find out with which order of image tiles a checkpoint was trained: `python -m worker.convert.tile_order_trial`.

The network is built with both orders and run on photographs; see `worker.convert.birefnet.tile_order`. The protocol is
that of `build_variant`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint, network
from worker.convert.birefnet.tile_order import OrderDecision, TileOrder, decide, with_rows
from worker.convert.build_variant import OnProgress, masks_of, serve
from worker.convert.evaluate.agreement import Masks
from worker.model.inference.runtime import core


@dataclass(frozen=True)
class TrialTask:
    """What to run."""

    checkpoint: str
    size: str
    """`HEIGHTxWIDTH`."""
    pictures: str
    """`.npy` of u8 `[n, H, W, 3]`."""


def run(task: TrialTask, on_progress: OnProgress) -> OrderDecision:
    """Run the network with both orders and return the decision.

    Raises:
        MaskmillError: the checkpoint or the network fails.
    """
    pictures = np.load(task.pictures, mmap_mode="r")
    on_progress("read the checkpoint", 0, 0)
    weights = checkpoint.load(task.checkpoint)

    def masks_with(order: TileOrder) -> Masks:
        on_progress(f"build with {order}", 0, 0)
        model = network.build(with_rows(weights, order), InputSize.parse(task.size))
        compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})
        return masks_of(compiled, pictures, lambda done: on_progress(f"run with {order}", done, len(pictures)))

    return decide(masks_with, len(pictures))


def main() -> int:
    """Run the task on standard input."""

    def work(task: dict[str, Any], on_progress: OnProgress) -> OrderDecision:
        return run(TrialTask(**task), on_progress)

    return serve(work)


if __name__ == "__main__":
    sys.exit(main())
