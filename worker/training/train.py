"""Training: composites by number, small ones first, a checkpoint now and then, a curve of what it learns.

    composites (processes) ──> batches ──> network ──> binary cross-entropy + 1 - soft IoU, also of the coarse heads
                                              └── moving average of the weights: what is kept

Interrupted, it goes on from its last checkpoint with the next composite of the series.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from worker.cpu import topology
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.training import compose, library
from worker.training.network import Starter

PHASES = ((0.62, 192), (0.84, 256), (1.0, 320))
"""Up to this share of the composites, sides of that length: most is learnt where a picture costs a third."""
CROWDED, CROWDED_FROM = 0.3, 0.32
"""Share of backgrounds full of shapes, and from which share of the composites on: first it learns what a subject is."""
BATCH = 16
RATE, WARM_UP, DECAY = 3e-3, 400, 1e-3
"""AdamW's peak learning rate, steps to reach it, weight decay; it falls as a cosine to zero."""
AVERAGE = 0.998
"""Decay of the moving average of the weights."""
COARSE_WEIGHT = 0.25
CHECKPOINT, CURVE, WEIGHTS = "checkpoint.pt", "curve.csv", "weights.npz"
_SAVE_STEPS, _SHOW_STEPS = 200, 25

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to train."""

    images: int
    """Composites in all."""
    seed: int = 1
    loaders: int = 1
    """Processes that make composites."""
    bf16: bool | None = None
    """Convolutions in bf16; None: if this CPU has AVX-512 BF16 or AMX."""


class Composites(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The series of composites; the number of one tells its size."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder, self._options = folder, options
        self._library: library.Library | None = None

    def __len__(self) -> int:
        return self._options.images

    def side(self, number: int) -> int:
        """Of that composite, the same in a whole batch."""
        share = (number // BATCH * BATCH) / self._options.images
        return next(side for end, side in PHASES if share < end)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if self._library is None:
            self._library = library.load(self._folder, "train")
        crowded = CROWDED if number >= CROWDED_FROM * self._options.images else 0.0
        made = compose.sample(self._library, self.side(number), self._options.seed, number, crowded=crowded)
        return torch.from_numpy(made.pixels.copy()), torch.from_numpy(made.alpha.copy())


def train(folder: Path, output: Path, options: Options, say: Say) -> Path:
    """Train, or go on training.

    Args:
        folder: of the library.
        output: for checkpoint, curve and weights.
        options: how much.
        say: told how it goes, a line at a time.

    Returns:
        The weights: arrays by their name in the network's state.
    """
    output.mkdir(parents=True, exist_ok=True)
    # What makes composites needs cores of its own: threads that wait for each other would stand still.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - options.loaders))
    torch.manual_seed(options.seed)
    run = _Run(output, options)
    composites = Composites(folder, options)
    steps = options.images // BATCH
    loader = torch.utils.data.DataLoader(
        composites,
        batch_sampler=[range(step * BATCH, (step + 1) * BATCH) for step in range(run.step, steps)],
        num_workers=options.loaders,
        prefetch_factor=4 if options.loaders else None,
    )
    began, first = time.monotonic(), run.step
    for pixels, alpha in loader:
        run.learn(pixels, alpha, steps)
        if run.step % _SHOW_STEPS == 0 or run.step == steps:
            rate = (run.step - first) * BATCH / (time.monotonic() - began)
            left = (steps - run.step) * BATCH / rate / 60
            say(f"{run.step}/{steps} {run.note(rate)} {left:.0f} min at this rate")
        if run.step % _SAVE_STEPS == 0 or run.step == steps:
            run.save()
    return run.export()


class _Run:
    """The state of a training."""

    def __init__(self, output: Path, options: Options) -> None:
        self._output, self._options = output, options
        self._bf16 = _has_bf16() if options.bf16 is None else options.bf16
        self._network = Starter().to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.AdamW(_groups(self._network), lr=RATE)
        self._average = AveragedModel(self._network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)
        self.step = 0
        self._seconds = 0.0
        self._rows: list[dict[str, float]] = []
        self._recent: list[tuple[float, float]] = []
        if (output / CHECKPOINT).exists():
            self._restore(torch.load(output / CHECKPOINT, weights_only=True))
        self._began = time.monotonic() - self._seconds

    def learn(self, pixels: Tensor, alpha: Tensor, steps: int) -> None:
        """One batch u8 [n, h, w, 3], u8 [n, h, w]."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate(self.step, steps)
        self._network.train()
        image = normalised(pixels).contiguous(memory_format=torch.channels_last)
        truth = alpha[:, None].float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            logits, coarse = self._network(image)
        loss, overlap = losses(logits.float(), [c.float() for c in coarse], truth)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 5.0)
        self._optimiser.step()
        self._average.update_parameters(self._network)
        self.step += 1
        self._recent.append((float(loss.detach()), float(overlap.detach())))

    def note(self, images_per_second: float) -> str:
        """Write a row of the curve; the same in words."""
        loss, overlap = (float(np.mean(values)) for values in zip(*self._recent, strict=True))
        self._recent.clear()
        seconds = time.monotonic() - self._began
        self._rows.append({"images": self.step * BATCH, "loss": loss, "iou": overlap, "seconds": round(seconds, 1)})
        with (self._output / CURVE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["images", "loss", "iou", "seconds"])
            writer.writeheader()
            writer.writerows(self._rows)
        return f"loss {loss:.3f} soft IoU {overlap:.3f} {images_per_second:.1f} images/s"

    def save(self) -> None:
        """The checkpoint, whole or not at all."""
        made = self._output / f"{CHECKPOINT}.part"
        state = {
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "seconds": time.monotonic() - self._began,
            "rows": self._rows,
            "images": self._options.images,
            "seed": self._options.seed,
        }
        torch.save(state, made)
        made.replace(self._output / CHECKPOINT)

    def export(self) -> Path:
        """The averaged weights as NumPy arrays."""
        path = self._output / WEIGHTS
        np.savez(path, **{name: value.numpy() for name, value in self._average.module.state_dict().items()})
        return path

    def _restore(self, state: dict[str, Any]) -> None:
        if (state["images"], state["seed"]) != (self._options.images, self._options.seed):
            raise ValueError(
                f"{self._output} holds a training of {state['images']} images with seed {state['seed']}; "
                "give another --output"
            )
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self._seconds, self._rows = state["step"], state["seconds"], state["rows"]


def losses(logits: Tensor, coarse: list[Tensor], truth: Tensor) -> tuple[Tensor, Tensor]:
    """What is made small, and the soft IoU, mean over pictures.

    Args:
        logits: [n, 1, h, w].
        coarse: logits of the coarse heads, at a fourth of the side or less.
        truth: 0 to 1, [n, 1, h, w].
    """
    overlap = soft_iou(logits, truth)
    loss = functional.binary_cross_entropy_with_logits(logits, truth) + 1 - overlap
    for one in coarse:
        small = functional.interpolate(truth, one.shape[2:], mode="area")
        loss = loss + COARSE_WEIGHT * (
            functional.binary_cross_entropy_with_logits(one, small) + 1 - soft_iou(one, small)
        )
    return loss, overlap


def soft_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of probabilities, mean over pictures."""
    found = torch.sigmoid(logits)
    both = (found * truth).sum((1, 2, 3))
    return ((both + 1) / ((found + truth).sum((1, 2, 3)) - both + 1)).mean()


def rate(step: int, steps: int) -> float:
    """Learning rate: a short rise, then a cosine to zero."""
    if step < WARM_UP:
        return RATE * (step + 1) / WARM_UP
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def normalised(pixels: Tensor) -> Tensor:
    """u8 [n, h, w, 3] to what the network takes: f32 [n, 3, h, w]."""
    mean, scale = (torch.tensor(values, dtype=torch.float32) for values in (IMAGENET_MEAN, IMAGENET_SCALE))
    return ((pixels.float() - mean) / scale).permute(0, 3, 1, 2)


def _groups(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Weights of convolutions decay, the numbers of each channel do not."""
    yield {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY}
    yield {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}


def _has_bf16() -> bool:
    return bool(topology.read().flags & {"avx512_bf16", "amx_bf16"})
