"""Make the INT8 variant of a network if it holds, in a child process; nothing here loads OpenVINO or NNCF."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from worker.contract.errors import BundleError, SetupError
from worker.contract.input_size import InputSize
from worker.convert.int8.outcome import Outcome
from worker.convert.int8.pictures import Int8Pictures
from worker.convert.variant_process import build_in_process

_MODULE = "worker.convert.int8.build"


def is_installed() -> bool:
    """Tell whether NNCF, which quantises, is installed."""
    return importlib.util.find_spec("nncf") is not None


def check_installed() -> None:
    """Check that NNCF is installed.

    Raises:
        SetupError: it is not.
    """
    if not is_installed():
        raise SetupError("INT8 variants require NNCF: pip install 'maskmill[convert]'")


def quantise(
    exact: Path,
    output: Path,
    pictures: Int8Pictures,
    *,
    name: str,
    size: InputSize,
    on_step: Callable[[str], None],
) -> Outcome:
    """Write the INT8 form of a float32 IR to `output`, unless it does not hold or cannot be made.

    Args:
        exact: `.xml` of the float32 network, with its facts in `model_info`.
        output: `.xml` to write.
        pictures: to calibrate with and to judge on.
        name: of the network, for messages.
        size: input size.
        on_step: called with each step in words.
    """
    last = ""

    def on_progress(what: str, done: int, total: int) -> None:
        nonlocal last
        if what != last:
            last = what
            on_step(f"INT8: {what}" + (f", {total} pictures" if total else ""))

    with tempfile.TemporaryDirectory(prefix="maskmill-int8-") as scratch:
        files = {"calibration": pictures.calibration, "judged": pictures.judged}
        paths = {what: str(Path(scratch) / f"{what}.npy") for what in files}
        for what, pixels in files.items():
            np.save(paths[what], pixels)
        task = {"xml": str(exact), "name": name, "size": str(size), "output": str(output), **paths}
        try:
            answer = build_in_process(task, f"{name} {size.short} int8", on_progress, _MODULE)
        except BundleError as error:  # the other precisions of the bundle are sound, and are not lost with it
            for suffix in (".xml", ".bin"):
                output.with_suffix(suffix).unlink(missing_ok=True)
            return Outcome(holds=False, steps=(), exact_core_seconds=0.0, failure=str(error))
    return Outcome.read(answer["outcome"])
