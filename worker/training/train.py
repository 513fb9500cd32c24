"""Train `starter`: composites in order of their number, small ones first, with checkpoints and a loss curve.

    composites (processes) ──> batches ──> network ──> binary cross-entropy + 1 - soft IoU, also for the coarse heads
                                              └── moving average of the weights, which is what is exported

After an interruption, training resumes from its last checkpoint with the next composite of the series.
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
"""Side of the composites up to each share of the series: most is learnt at the smallest, which costs a third."""
CROWDED, CROWDED_FROM = 0.3, 0.32
"""Share of backgrounds drawn by `compose.crowd`, and the share of the series from which on they occur. The network
learns first what a subject is."""
BATCH = 16
RATE, WARM_UP, DECAY = 3e-3, 400, 1e-3
"""AdamW: peak learning rate, steps of linear warm-up, weight decay. The rate then falls to zero as a cosine."""
AVERAGE = 0.998
"""Decay of the moving average of the weights."""
COARSE_WEIGHT = 0.25
"""Weight of each coarse head in the loss."""
CHECKPOINT, CURVE, WEIGHTS = "checkpoint.pt", "curve.csv", "weights.npz"
_SAVE_STEPS, _SHOW_STEPS = 200, 25
"""Steps between checkpoints, and between reports of progress."""

OnProgress = Callable[[str], None]
"""Called with one line of text at a time."""


@dataclass(frozen=True)
class TrainingConfig:
    """Extent of a training run."""

    images: int
    """Composites in the whole run."""
    seed: int = 1
    loaders: int = 1
    """Processes that generate composites."""
    bf16: bool | None = None
    """Whether convolutions run in bf16; None: if this CPU has AVX-512 BF16 or AMX."""


class CompositeDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The series of composites; the number of a composite determines its size."""

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        self._folder, self._config = folder, config
        self._library: library.Library | None = None

    def __len__(self) -> int:
        return self._config.images

    def side(self, number: int) -> int:
        """Return the side of a composite in pixels, which is the same for a whole batch."""
        share = (number // BATCH * BATCH) / self._config.images
        return next(side for end, side in PHASES if share < end)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if self._library is None:
            self._library = library.load(self._folder, "train")
        crowded = CROWDED if number >= CROWDED_FROM * self._config.images else 0.0
        made = compose.composite(self._library, self.side(number), self._config.seed, number, crowded=crowded)
        return torch.from_numpy(made.pixels.copy()), torch.from_numpy(made.alpha.copy())


def train(folder: Path, output: Path, config: TrainingConfig, on_progress: OnProgress) -> Path:
    """Train the network, or resume training from the checkpoint in `output`.

    Args:
        folder: of the library.
        output: folder for checkpoint, curve and weights.
        config: extent of the run.
        on_progress: called with the progress, a line at a time.

    Returns:
        The weights file: arrays by their name in the network's state dict.

    Raises:
        ValueError: `output` holds a run with another number of images or another seed.
    """
    output.mkdir(parents=True, exist_ok=True)
    # Loader processes need cores of their own: PyTorch's threads wait for each other, so one delayed thread stalls all.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - config.loaders))
    torch.manual_seed(config.seed)
    run = _Run(output, config)
    steps = config.images // BATCH
    began, first = time.monotonic(), run.step
    for pixels, alpha in _batches(folder, config, first, steps):
        run.learn(pixels, alpha, steps)
        if run.step % _SHOW_STEPS == 0 or run.step == steps:
            rate = (run.step - first) * BATCH / (time.monotonic() - began)
            left = (steps - run.step) * BATCH / rate / 60
            on_progress(f"{run.step}/{steps} {run.log_row(rate)} {left:.0f} min left at this rate")
        if run.step % _SAVE_STEPS == 0 or run.step == steps:
            run.save()
    return run.export()


def _batches(folder: Path, config: TrainingConfig, first: int, steps: int) -> Any:
    """Load the batches of steps `first` to `steps`: pixels u8 `[n, h, w, 3]` and alpha u8 `[n, h, w]`."""
    return torch.utils.data.DataLoader(
        CompositeDataset(folder, config),
        batch_sampler=[range(step * BATCH, (step + 1) * BATCH) for step in range(first, steps)],
        num_workers=config.loaders,
        prefetch_factor=4 if config.loaders else None,
    )


class _Run:
    """The state of a training run."""

    def __init__(self, output: Path, config: TrainingConfig) -> None:
        self._output, self._config = output, config
        self._bf16 = _has_bf16() if config.bf16 is None else config.bf16
        self._network = Starter().to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.AdamW(_parameter_groups(self._network), lr=RATE)
        self._average = AveragedModel(self._network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)
        self.step = 0
        self._seconds = 0.0
        self._rows: list[dict[str, float]] = []
        self._recent: list[tuple[float, float]] = []
        if (output / CHECKPOINT).exists():
            self._restore(torch.load(output / CHECKPOINT, weights_only=True))
        self._began = time.monotonic() - self._seconds

    def learn(self, pixels: Tensor, alpha: Tensor, steps: int) -> None:
        """Train on one batch.

        Args:
            pixels: u8 `[n, h, w, 3]`.
            alpha: u8 `[n, h, w]`.
            steps: of the whole run, which the learning rate depends on.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.step, steps)
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

    def log_row(self, images_per_second: float) -> str:
        """Append the mean since the last call to the curve, and return it as text."""
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
        """Write the checkpoint and replace the previous one by an atomic rename."""
        part = self._output / f"{CHECKPOINT}.part"
        state = {
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "seconds": time.monotonic() - self._began,
            "rows": self._rows,
            "images": self._config.images,
            "seed": self._config.seed,
        }
        torch.save(state, part)
        part.replace(self._output / CHECKPOINT)

    def export(self) -> Path:
        """Write the averaged weights as NumPy arrays and return the file."""
        path = self._output / WEIGHTS
        np.savez(path, **{name: value.numpy() for name, value in self._average.module.state_dict().items()})
        return path

    def _restore(self, state: dict[str, Any]) -> None:
        if (state["images"], state["seed"]) != (self._config.images, self._config.seed):
            raise ValueError(
                f"{self._output} holds a training run of {state['images']} images with seed {state['seed']}; "
                "choose another --folder"
            )
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self._seconds, self._rows = state["step"], state["seconds"], state["rows"]


def losses(logits: Tensor, coarse: list[Tensor], truth: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss and the soft IoU, both as means over the batch.

    Args:
        logits: `[n, 1, h, w]`.
        coarse: logits of the coarse heads, at a fourth of the side or less.
        truth: `[n, 1, h, w]`, 0 to 1.
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
    """Compute the intersection over union of probabilities, mean over the batch; 1 is added to both areas."""
    found = torch.sigmoid(logits)
    both = (found * truth).sum((1, 2, 3))
    return ((both + 1) / ((found + truth).sum((1, 2, 3)) - both + 1)).mean()


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to zero."""
    if step < WARM_UP:
        return RATE * (step + 1) / WARM_UP
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def normalised(pixels: Tensor) -> Tensor:
    """Normalise u8 `[n, h, w, 3]` to the network's input, f32 `[n, 3, h, w]`."""
    mean, scale = (torch.tensor(values, dtype=torch.float32) for values in (IMAGENET_MEAN, IMAGENET_SCALE))
    return ((pixels.float() - mean) / scale).permute(0, 3, 1, 2)


def _parameter_groups(network: nn.Module) -> Iterator[dict[str, Any]]:
    """Apply weight decay to the weights of convolutions, but not to parameters with one value per channel."""
    yield {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY}
    yield {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}


def _has_bf16() -> bool:
    return bool(topology.read().flags & {"avx512_bf16", "amx_bf16"})
