"""`worker bench images --memory`: peak memory of decoding and of each output, in bytes per pixel.

Every case runs in a process of its own, because a peak never falls again: it reads the file, processes a small picture
of the same kind, and then the large one. The figure is the peak resident memory (`VmHWM`) at the end minus the resident
memory before the large picture, over its pixels. Files are written by another process, which would leave memory behind.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress
from worker.bench.image_memory_report import SCHEMA_VERSION, ImageMemoryReport, MemoryRow
from worker.bench.images import drawn_mask, generated
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.cpu import topology
from worker.images.decode import FULL_SIZE, decode
from worker.images.memory import Header, decode_peak, picture_peak
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.processes.heap import keep_memory
from worker.processes.memory import peak_bytes, resident_bytes
from worker.processes.parent_death import bound_to_parent

_MODULE = "worker.bench.image_memory"
_SMALL = (160, 120)
_MEGA = 1_000_000
_SIZE = InputSize.square(512)
_TURNED = 6  # EXIF: a quarter turn
_ROWS_PER_STRIP = 278  # tag of TIFF

Writer = Callable[[Image.Image], bytes]


def _saved(form: str, convert: Callable[[Image.Image], Image.Image] = lambda image: image, **options: Any) -> Writer:
    def write(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        convert(image).save(buffer, form, **options)
        return buffer.getvalue()

    return write


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L")


def _with_matte(image: Image.Image) -> Image.Image:
    found = image.copy()
    found.putalpha(image.convert("L"))
    return found


def _palette(image: Image.Image) -> Image.Image:
    return image.quantize(64)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = _TURNED
    return exif.tobytes()


def _without_end(image: Image.Image) -> bytes:
    return _saved("JPEG")(image)[:-2]


def _one_strip(image: Image.Image) -> bytes:
    return _saved("TIFF", compression="tiff_adobe_deflate", tiffinfo={_ROWS_PER_STRIP: image.height})(image)


INPUTS: dict[str, Writer] = {
    "JPEG": _saved("JPEG", quality=90),
    "JPEG grey": _saved("JPEG", _grey),
    "JPEG CMYK": _saved("JPEG", lambda image: image.convert("CMYK")),
    "JPEG turned": _saved("JPEG", exif=_turned()),
    "JPEG progressive": _saved("JPEG", quality=90, progressive=True),
    "JPEG progressive 4:4:4": _saved("JPEG", quality=90, progressive=True, subsampling=0),
    "JPEG without its end": _without_end,
    "PNG": _saved("PNG", compress_level=1),
    "PNG grey": _saved("PNG", _grey, compress_level=1),
    "PNG RGBA": _saved("PNG", _with_matte, compress_level=1),
    "PNG transparent colour": _saved("PNG", compress_level=1, transparency=(1, 2, 3)),
    "PNG palette": _saved("PNG", _palette, compress_level=1),
    "WebP": _saved("WEBP", method=0),
    "WebP RGBA": _saved("WEBP", _with_matte, method=0),
    "AVIF": _saved("AVIF", speed=10),
    "AVIF RGBA": _saved("AVIF", _with_matte, speed=10, subsampling="4:4:4"),
    "GIF": _saved("GIF", _palette),
    "BMP": _saved("BMP"),
    "TIFF": _saved("TIFF"),
    "TIFF RGBA": _saved("TIFF", _with_matte, compression="tiff_lzw"),
    "TIFF in one strip": _one_strip,
}
"""Name -> writer of a file."""

OUTPUTS: dict[str, dict[str, Any]] = {
    "mask": {},
    "mask WebP": {"format": "webp"},
    "mask AVIF": {"format": "avif"},
    "cutout": {"outputs": ("cutout",)},
    "cutout refine": {"outputs": ("cutout",), "refine": True},
    "cutout WebP": {"outputs": ("cutout",), "format": "webp"},
    "cutout AVIF": {"outputs": ("cutout",), "format": "avif"},
    "composite": {"outputs": ("composite",)},
    "composite JPEG": {"outputs": ("composite",), "format": "jpeg"},
    "composite WebP": {"outputs": ("composite",), "format": "webp"},
    "composite AVIF": {"outputs": ("composite",), "format": "avif"},
}
"""Name -> output options other than the defaults."""

OUTPUT_INPUTS = ("JPEG", "PNG RGBA")
"""Inputs for which the outputs are measured: without a matte of its own, and with one."""


def run(megapixels: float, on_progress: OnProgress) -> ImageMemoryReport:
    """Measure all inputs without an output, and all outputs of two inputs.

    Raises:
        SetupError: a process that measures failed, most likely for lack of memory.
    """
    cases = [(name, "") for name in INPUTS] + [(name, output) for name in OUTPUT_INPUTS for output in OUTPUTS]
    rows = []
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch:
        for number, (name, output) in enumerate(cases, 1):
            on_progress(f"{number} of {len(cases)}: {name}{f', {output}' if output else ''}")
            rows.append(measure(name, output, megapixels, Path(scratch)))
    return ImageMemoryReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "image-memory",
            "machine": machine_facts.facts(topology.read()),
            "pillow": machine_facts.version("pillow"),
            "megapixels": megapixels,
            "results": rows,
        }
    )


def measure(name: str, output: str, megapixels: float, scratch: Path) -> MemoryRow:
    """Measure one case.

    Args:
        name: of the input.
        output: name of the output; empty: the picture is decoded in full, and that is all.
        megapixels: of the picture.
        scratch: folder for its files.

    Raises:
        SetupError: the process that measures failed.
    """
    height = round((megapixels * _MEGA * 3 / 4) ** 0.5 / 16) * 16
    small, large = scratch / f"{name.replace('/', '-')}-small", scratch / f"{name.replace('/', '-')}-{height}"
    for file, size in ((small, _SMALL), (large, (height * 4 // 3, height))):
        if not file.exists():
            file.write_bytes(INPUTS[name](generated(*size)))
    task = {"small": str(small), "large": str(large), "output": output}
    # -P: a folder named `worker` in the working directory must not be imported
    command = bound_to_parent([sys.executable, "-P", "-m", _MODULE], signal.SIGKILL)
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SetupError(f"the process that measured {name} failed: {said}; use fewer --megapixels")
    answer = json.loads(done.stdout)
    return {
        "input": name,
        "output": output,
        "bytes_per_pixel": answer["peak"] / answer["pixels"],
        "estimated_bytes_per_pixel": answer["estimated"] / answer["pixels"],
        "file_bytes_per_pixel": large.stat().st_size / answer["pixels"],
    }


def _process(data: bytes, output: str) -> tuple[int, int]:
    """Process one picture; return its pixels and the estimate of its peak memory in bytes."""
    options = OutputOptions(**OUTPUTS[output]) if output else None
    found: list[Header] = []
    picture = decode(data, LimitSettings(), decode_target(options, _SIZE) if options else FULL_SIZE, found.append)
    if options is None:
        return found[0].pixels, decode_peak(found[0])
    del data
    to_tensor(picture, _SIZE)
    for _ in render(picture, drawn_mask(_SIZE), options)[1]:
        pass
    return found[0].pixels, picture_peak(found[0], options)


def main() -> int:
    """Measure the task on standard input."""
    keep_memory()  # as workers do
    task = json.load(sys.stdin)
    _process(Path(task["small"]).read_bytes(), task["output"])
    data = Path(task["large"]).read_bytes()
    before = resident_bytes() - len(data)  # the file is a part of the estimate
    pixels, estimated = _process(data, task["output"])
    sys.stdout.write(json.dumps({"peak": peak_bytes() - before, "pixels": pixels, "estimated": estimated}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
