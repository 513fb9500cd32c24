"""One variant from checkpoint to measured file, in a process of its own: `python -m worker.convert.build_variant`.

    standard input    the task, JSON
    standard output   JSON lines: progress, then one result or one error

Its own process, because NNCF at 1024 takes gigabytes that only the end of a process returns, and because the peak of
memory can be told for each variant alone. What NNCF prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError, MaskmillError
from worker.convert import quantise
from worker.convert.birefnet import checkpoint, network
from worker.convert.evaluate.agreement import Masks, compare
from worker.convert.model_info import write_model_info
from worker.convert.quantisation_config import Recipe
from worker.images.tensor import normalise
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import core, ov
from worker.processes.memory import peak_bytes

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Task:
    """What to build, and from what."""

    checkpoint: str
    size: int
    precision: str
    rewrites: tuple[str, ...]
    xml: str
    """File to write; the `.bin` goes beside it."""
    pictures: str
    """`.npy` of u8 `[n, R, R, 3]`: calibration, and for all but fp32 comparison."""
    compared: int
    """The first so many pictures are those compared on; 0 for a network that is only tried."""
    reference: str
    """`.npy` of the masks of fp32: written by fp32, read by the others."""
    recipe: dict[str, Any]
    """Fields of `Recipe`."""


@dataclass(frozen=True)
class Result:
    """What came out."""

    build_seconds: float
    compare_seconds: float
    peak_memory_mib: int
    agreement: dict[str, float | int] | None
    """None for fp32 itself."""


Say = Callable[[str, int, int], None]
"""Told of (what is being done, done, of how many; 0 when not known)."""


def build(task: Task, say: Say) -> Result:
    """Build, write, load what was written, compare.

    Raises:
        MaskmillError: of the checkpoint, the network, NNCF or the disk.
    """
    began = time.perf_counter()
    pictures = np.load(task.pictures, mmap_mode="r")
    model = _model(task, pictures, say)
    write_model_info(model)
    say("write", 0, 0)
    _save(model, Path(task.xml), half=task.precision == "fp16")
    del model
    built = time.perf_counter()
    masks = _masks(Path(task.xml), pictures[: max(task.compared, 1)], say)
    agreement = None
    if task.precision == "fp32":
        np.save(task.reference, masks)
    else:
        agreement = compare(masks, np.load(task.reference)).as_dict()
    return Result(
        build_seconds=round(built - began, 1),
        compare_seconds=round(time.perf_counter() - built, 1),
        peak_memory_mib=peak_bytes() // _MIB,
        agreement=agreement,
    )


def _model(task: Task, pictures: npt.NDArray[np.uint8], say: Say) -> Any:
    say("read the checkpoint", 0, 0)
    weights = checkpoint.load(task.checkpoint)
    say("build", 0, 0)
    model = network.build(weights, task.size, task.rewrites)
    del weights
    if task.precision == "int8wo":
        say("compress weights", 0, 0)
        return quantise.weight_only(model)
    if task.precision == "int8":
        recipe = Recipe(**task.recipe)
        total = len(pictures) * recipe.passes
        say("quantise", 0, total)
        return quantise.post_training(model, pictures, recipe, lambda done: say("quantise", done, total))
    return model


def _save(model: Any, xml: Path, *, half: bool) -> None:
    try:
        ov.save_model(model, str(xml), compress_to_fp16=half)
    except RuntimeError as error:
        raise BundleError(f"{xml.name} cannot be written ({error}); is the disk full?") from error


def _masks(xml: Path, pictures: npt.NDArray[np.uint8], say: Say) -> Masks:
    """Masks f32 `[n, R, R]`, from the files as they were written.

    The float part runs in f32 whatever the CPU would choose, so that numbers of two machines can be compared.
    """
    say("compare", 0, len(pictures))
    try:
        network_ = core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})
    except RuntimeError as error:
        raise BundleError(f"{xml.name} cannot be read back: {error}; is the disk full?") from error
    masks = []
    for index in range(len(pictures)):
        logits = network_(normalise(pictures[index : index + 1], IMAGENET_MEAN, IMAGENET_SCALE))[0][0, 0]
        masks.append((1 + np.tanh(logits / 2)) / 2)  # the sigmoid, in the form that cannot overflow
        say("compare", index + 1, len(pictures))
    return np.stack(masks).astype(np.float32)


def main() -> int:
    """Exit code 0, or 1 after an error was told."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as lines, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        with redirect_stdout(nowhere):
            return _run(json.load(sys.stdin), lines)


def _run(task: dict[str, Any], lines: IO[str]) -> int:
    def tell(kind: str, value: object) -> None:
        lines.write(json.dumps({kind: value}) + "\n")
        lines.flush()

    try:
        result = build(Task(**task), lambda what, done, total: tell("progress", [what, done, total]))
    except MaskmillError as error:
        tell("error", [type(error).__name__, str(error)])
        return 1
    except OSError as error:
        tell("error", [BundleError.__name__, f"{error}; free some space or choose another folder"])
        return 1
    except MemoryError:
        tell("error", [BundleError.__name__, "not enough memory; close other programs or convert a smaller size"])
        return 1
    tell("result", asdict(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
