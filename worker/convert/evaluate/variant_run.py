"""Run one variant over some pictures in a separate process, which frees its memory and contains a crash.

The network runs in one stream on all cores of one core set, and is fed as the worker feeds it.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.contract.errors import BundleError
from worker.contract.settings import LimitSettings
from worker.convert.evaluate.pictures import read
from worker.cpu import pinning
from worker.images.tensor import to_tensor
from worker.model.format.variant import Variant
from worker.processes.memory import peak_bytes

if TYPE_CHECKING:
    from worker.model.inference.engine import FloatPrecision

_MIB = 1024 * 1024


@dataclass(frozen=True)
class RunTask:
    """What to run, and where to write the masks."""

    variant: Variant
    arithmetic: FloatPrecision
    pictures: tuple[Path, ...]
    output: Path
    """Folder for the masks: `{index of the picture}.npy`, u8 `[H, W]`."""
    cpus: tuple[int, ...]
    limits: LimitSettings


@dataclass(frozen=True)
class RunResult:
    """Measurements of a run."""

    facts: dict[str, Any]
    """See `worker.model.inference.engine.Engine.describe`."""
    seconds: float
    """Median time per picture, without decoding and resizing."""
    peak_mib: int
    """Peak memory of the process, including the Python interpreter and OpenVINO."""


def run(task: RunTask) -> RunResult:
    """Run the task in a new process and wait for it.

    Raises:
        BundleError: the network cannot be loaded, or the process died, most likely for lack of memory.
        PlacementError: OpenVINO does not use these CPUs.
        SourceError: a picture cannot be read.
        InferenceFailed: the network raised an error.
    """
    # Pin before the process imports anything that starts threads (NumPy, OpenVINO).
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=pinning.pin, initargs=(task.cpus,)
    ) as pool:
        try:
            return pool.submit(_run_here, task).result()
        except BrokenProcessPool as error:
            raise BundleError(
                f"the process that ran {task.variant.label} died; check the kernel's log for a lack of memory"
            ) from error


def masks(folder: Path, indices: Sequence[int]) -> list[Path]:
    """Return the files of the masks that a finished run has written to `folder`."""
    return [folder / f"{index}.npy" for index in indices]


def _run_here(task: RunTask) -> RunResult:
    from worker.model.inference.engine import Engine  # in this process only

    logging.getLogger("worker").addHandler(logging.NullHandler())  # its warnings are in the facts
    task.output.mkdir(parents=True, exist_ok=True)
    seconds = []
    with Engine.load(task.variant, streams=1, threads=len(task.cpus), inference_precision=task.arithmetic) as engine:
        engine.warm_up()
        for path, target in zip(task.pictures, masks(task.output, range(len(task.pictures))), strict=True):
            tensor = to_tensor(read(path, task.limits), engine.size)
            began = time.perf_counter()
            grey = engine.infer(tensor)
            seconds.append(time.perf_counter() - began)
            np.save(target, grey)
        facts = engine.describe()
    return RunResult(facts, statistics.median(seconds), peak_bytes() // _MIB)
