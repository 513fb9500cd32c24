"""A plain loop over a folder with ONNX Runtime, OpenVINO or PyTorch, as a script has it. Imports no code of ours.

standard input    {"engine", "model", "output", "size", "mean", "scale", "by_maximum", "logits", "stretch",
                   "pictures", "folder"}
folder/N.png      cut-out of picture N
standard output   {"seconds", "cpu_seconds", "peak_mib", "version"}: the loop alone, without loading
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    infer, version = ENGINES[request["engine"]](request)
    pictures = [Path(path) for path in request["pictures"]]
    cut_out(pictures[0], request, infer).close()  # the first run prepares memory and threads
    began, cpu = time.perf_counter(), _cpu_seconds()
    for path in pictures:
        cut_out(path, request, infer).save(Path(request["folder"]) / f"{path.stem}.png")
    answer = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": _cpu_seconds() - cpu,
        "peak_mib": _peak_mib(),
        "version": version,
    }
    sys.stdout.write(json.dumps(answer) + "\n")


def cut_out(path: Path, request: dict[str, Any], infer: Callable[[Any], Any]) -> Image.Image:
    """Return a picture with the network's mask as its alpha channel, at the size of the picture."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    height, width = request["size"]
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    if request["by_maximum"]:
        pixels = pixels * (255 / max(float(pixels.max()), 1e-6))
    values = (pixels - np.array(request["mean"], np.float32)) / np.array(request["scale"], np.float32)
    mask = infer(np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis]))
    if request["logits"]:
        mask = 1 / (1 + np.exp(-mask))
    if request["stretch"]:
        mask = (mask - mask.min()) / max(float(np.ptp(mask)), 1e-6)
    levels = Image.fromarray(np.rint(np.clip(mask, 0, 1) * 255).astype(np.uint8))
    picture.putalpha(levels.resize(picture.size, Image.Resampling.BILINEAR))
    return picture


def _onnxruntime(request: dict[str, Any]) -> tuple[Callable[[Any], Any], str]:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(request["model"], providers=["CPUExecutionProvider"])
    image, output = session.get_inputs()[0].name, request["output"] or session.get_outputs()[0].name
    return lambda values: session.run([output], {image: values})[0][0, 0], f"ONNX Runtime {runtime.__version__}"


def _openvino(request: dict[str, Any]) -> tuple[Callable[[Any], Any], str]:
    ov = importlib.import_module("openvino")
    model = ov.Core().read_model(request["model"])
    model.reshape([1, 3, *request["size"]])
    compiled = ov.Core().compile_model(model, "CPU")
    output = request["output"] or 0
    return lambda values: compiled(values)[output][0, 0], f"OpenVINO {importlib.metadata.version('openvino')}"


def _pytorch(request: dict[str, Any], *, compiled: bool = False) -> tuple[Callable[[Any], Any], str]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = runpy.run_path(str(Path(__file__).with_name("onnx_in_pytorch.py")))["load"](
        request["model"], tuple(request["size"]), request["output"]
    )
    if compiled:
        network = torch.compile(network)

    def infer(values: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(values))[0, 0].numpy()

    return infer, f"PyTorch {torch.__version__}"


ENGINES: dict[str, Callable[[dict[str, Any]], tuple[Callable[[Any], Any], str]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "pytorch": _pytorch,
    "pytorch-compiled": functools.partial(_pytorch, compiled=True),
}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mib() -> int:
    """Return the peak resident set size of this process (`VmHWM` of proc(5)) in MiB."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
