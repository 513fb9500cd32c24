"""Runs in rembg's own environment: masks of some pictures, as rembg makes them. Imports nothing of this package.

standard input    {"session", "pictures", "output"}
output/N.npy      u8 [h, w] of picture N, upright
standard output   {"seconds", "peak_mib", "versions"}
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    rembg = importlib.import_module("rembg")
    session = rembg.new_session(request["session"])
    seconds = []
    for index, path in enumerate(request["pictures"]):
        with Image.open(path) as image:
            image.load()
            began = time.perf_counter()
            mask = rembg.remove(image, session=session, only_mask=True)
            seconds.append(time.perf_counter() - began)
        np.save(Path(request["output"]) / f"{index}.npy", np.asarray(mask.convert("L")))
    versions = {name: importlib.metadata.version(name) for name in ("rembg", "onnxruntime", "pillow", "numpy")}
    answer = {"seconds": statistics.median(seconds), "peak_mib": _peak_mib(), "versions": versions}
    sys.stdout.write(json.dumps(answer) + "\n")


def _peak_mib() -> int:
    """Return the peak resident set size of this process (`VmHWM` of proc(5)) in MiB."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
