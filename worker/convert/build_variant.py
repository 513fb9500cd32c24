"""Build, write and measure one variant, in a separate process: `python -m worker.convert.build_variant`.

    standard input    the task, JSON
    standard output   JSON lines: progress, then one result or one error

A separate process, because NNCF at 1024 takes gigabytes that are returned only when the process ends, and because the
peak memory can then be measured for each variant. Whatever NNCF prints is discarded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError, MaskmillError
from worker.contract.input_size import InputSize
from worker.convert import calibration, quantise
from worker.convert.birefnet import checkpoint, network
from worker.convert.birefnet.tile_order import TileOrder, with_rows
from worker.convert.evaluate.agreement import Masks, compare
from worker.convert.model_info import write_model_info
from worker.convert.quantisation_config import QuantisationConfig
from worker.images.tensor import normalise
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE
from worker.model.inference.runtime import core, ov
from worker.processes.memory import peak_bytes

_MIB = 1024 * 1024


@dataclass(frozen=True)
class BuildTask:
    """What to build, and from which files."""

    checkpoint: str
    size: str
    """`HEIGHTxWIDTH`."""
    precision: str
    rewrites: tuple[str, ...]
    xml: str
    """File to write; the `.bin` goes beside it."""
    pictures: str
    """`.npy` of u8 `[n, H, W, 3]` for calibration and comparison."""
    compared: int
    """Number of pictures, from the first, to compare on; INT8 is calibrated on the others. 0 if there is nothing to
    compare with; the network is then run once, as a check."""
    reference: str
    """`.npy` of the masks of fp32: written by fp32, read by the other precisions."""
    quantisation: dict[str, Any]
    """Fields of `QuantisationConfig`."""
    tile_order: str = TileOrder.ROWS
    """Order of the image tiles that the checkpoint was trained with."""
    facts: dict[str, str] = field(default_factory=dict)
    """Keys to add to `model_info`."""


@dataclass(frozen=True)
class BuildResult:
    """Measurements of a variant."""

    build_seconds: float
    compare_seconds: float
    peak_memory_mib: int
    agreement: dict[str, float | int] | None
    """None for fp32, the reference."""


OnProgress = Callable[[str, int, int], None]
"""Called with (activity, done, total); `total` is 0 when not known."""


def build(task: BuildTask, on_progress: OnProgress) -> BuildResult:
    """Build the variant, write it, load it again and compare its masks with those of FP32.

    Raises:
        MaskmillError: the checkpoint, the network, NNCF or the disk fails.
    """
    began = time.perf_counter()
    pictures = np.load(task.pictures, mmap_mode="r")
    model = _model(task, pictures, on_progress)
    write_model_info(model, task.facts)  # again, as NNCF returns another graph
    on_progress("write", 0, 0)
    _save(model, Path(task.xml), half=task.precision == "fp16")
    del model
    built = time.perf_counter()
    masks = _masks(Path(task.xml), pictures[: max(task.compared, 1)], on_progress)
    agreement = None
    if task.precision == "fp32":
        np.save(task.reference, masks)
    else:
        agreement = compare(masks, np.load(task.reference)).as_dict()
    return BuildResult(
        build_seconds=round(built - began, 1),
        compare_seconds=round(time.perf_counter() - built, 1),
        peak_memory_mib=peak_bytes() // _MIB,
        agreement=agreement,
    )


def _model(task: BuildTask, pictures: npt.NDArray[np.uint8], on_progress: OnProgress) -> Any:
    on_progress("read the checkpoint", 0, 0)
    weights = with_rows(checkpoint.load(task.checkpoint), TileOrder(task.tile_order))
    on_progress("build", 0, 0)
    model = network.build(weights, InputSize.parse(task.size), task.rewrites)
    del weights
    write_model_info(model, task.facts)  # calibration reads there how the network is fed
    if task.precision == "int8wo":
        on_progress("compress weights", 0, 0)
        return quantise.weight_only(model)
    if task.precision == "int8":
        config = QuantisationConfig(**task.quantisation)
        calibrated = calibration.not_compared(pictures, task.compared)
        total = len(calibrated) * config.passes
        on_progress("quantise", 0, total)
        return quantise.post_training(model, calibrated, config, lambda done: on_progress("quantise", done, total))
    return model


def _save(model: Any, xml: Path, *, half: bool) -> None:
    try:
        ov.save_model(model, str(xml), compress_to_fp16=half)
    except RuntimeError as error:
        raise BundleError(f"{xml.name} cannot be written ({error}); check the free disk space") from error


def _masks(xml: Path, pictures: npt.NDArray[np.uint8], on_progress: OnProgress) -> Masks:
    """Compute masks f32 `[n, H, W]` from the files on disk.

    The float part always runs in f32, whatever the CPU would choose, so that results of two machines are comparable.
    """
    try:
        compiled = core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})
    except RuntimeError as error:
        raise BundleError(f"{xml.name} cannot be read back: {error}; check the free disk space") from error
    return masks_of(compiled, pictures, lambda done: on_progress("compare", done, len(pictures)))


def masks_of(compiled: Any, pictures: npt.NDArray[np.uint8], on_picture: Callable[[int], None]) -> Masks:
    """Return the masks f32 `[n, H, W]` of a compiled network that takes ImageNet-normalised pictures, gives logits."""
    on_picture(0)
    masks = []
    for index in range(len(pictures)):
        logits = compiled(normalise(pictures[index : index + 1], IMAGENET_MEAN, IMAGENET_SCALE))[0][0, 0]
        masks.append((1 + np.tanh(logits / 2)) / 2)  # the sigmoid, in a form that cannot overflow
        on_picture(index + 1)
    return np.stack(masks).astype(np.float32)


def main() -> int:
    """Build the task on standard input."""
    return serve(lambda task, on_progress: build(BuildTask(**task), on_progress))


def serve(work: Callable[[dict[str, Any], OnProgress], Any]) -> int:
    """Do the task on standard input; keep standard output free of everything but messages.

    Args:
        work: takes the task and returns a data class.

    Returns:
        0, or 1 after reporting an error.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as lines, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        with redirect_stdout(nowhere):
            return _run(work, json.load(sys.stdin), lines)


def _run(work: Callable[[dict[str, Any], OnProgress], Any], task: dict[str, Any], lines: IO[str]) -> int:
    def send(kind: str, value: object) -> None:
        lines.write(json.dumps({kind: value}) + "\n")
        lines.flush()

    try:
        result = work(task, lambda activity, done, total: send("progress", [activity, done, total]))
    except MaskmillError as error:
        send("error", [type(error).__name__, str(error)])
        return 1
    except OSError as error:
        send("error", [BundleError.__name__, f"{error}; free some disk space or choose another folder"])
        return 1
    except MemoryError:
        send("error", [BundleError.__name__, "out of memory; close other programs or convert a smaller size"])
        return 1
    send("result", asdict(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
