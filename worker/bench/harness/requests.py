"""What a parent and its child processes (see `process`) exchange, as JSON objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Required, TypedDict

from worker.contract.input_size import InputSize
from worker.contract.settings import NativeKernels
from worker.model.format.variant import Variant


class VariantFiles(TypedDict):
    """A `Variant`, ready for JSON."""

    name: str
    size: int | str
    """One number for a square, else `HEIGHTxWIDTH`."""
    precision: str
    xml: str
    bin: str
    digest: str


class NetworkRequest(TypedDict, total=False):
    """A network to load, time, profile or export; each job reads the fields that it documents."""

    job: Required[str]
    cpus: Sequence[int]
    huge_pages: bool
    """Whether malloc asks for huge pages, as it does in workers; true by default."""
    kernels: NativeKernels
    """Which native operations the engine may use."""
    arithmetic: str
    """Of the float part: f32 or bf16."""
    streams: int
    threads: int
    """Of all streams together."""
    variant: VariantFiles | None
    checkpoint: str | None
    image: str
    """`.npy`, u8 `[1, R, R, 3]`."""
    normalised: str
    """`.npy`, f32 `[1, 3, R, R]`."""
    onnx: str
    """File of the exported network."""


class PrepareRequest(TypedDict):
    """The networks and the picture of one size (see `worker.bench.prepare`)."""

    job: str
    cpus: Sequence[int]
    size: int | str
    """One number for a square, else `HEIGHTxWIDTH`."""
    checkpoint: str | None
    folder: str
    build_ours: bool
    """Whether to build the rewritten network too."""


class PreparedFiles(TypedDict):
    """Paths that `worker.bench.prepare` wrote, and the weights in words."""

    weights: str
    checkpoint: str | None
    image: str
    normalised: str
    plain: str
    """Bundle folder of the network without rewrites."""
    ours: str | None
    """Bundle folder of the rewritten network, if it was built."""


class RedisAddress(TypedDict):
    """Fields of `RedisSettings`."""

    url: str
    password: str
    prefix: str


class SimulationRequest(TypedDict):
    """Worker processes to simulate (see `worker.bench.fleet_worker`)."""

    job: str
    cpus: Sequence[int]
    redis: RedisAddress
    workers: list[str]
    """Names."""
    seconds_per_image: float
    seconds: float


class SimulationAnswer(TypedDict):
    """What simulated workers did."""

    images: int
    chunks: int
    lag_seconds: float
    """The largest delay of an action; if it is much longer than a call, the simulating process is the bottleneck."""
    calls_ms: list[float]
    """Of ledger calls: median and 99th percentile."""


def files_of(variant: Variant) -> VariantFiles:
    """Return a variant as a JSON object."""
    return {
        "name": variant.name,
        "size": variant.size.as_json(),
        "precision": variant.precision,
        "xml": str(variant.xml),
        "bin": str(variant.bin),
        "digest": variant.digest,
    }


def variant_of(request: NetworkRequest) -> Variant:
    """Return the variant of a request.

    Raises:
        ValueError: the request names no variant.
    """
    files = request["variant"]
    if files is None:
        raise ValueError(f"the job {request['job']} needs a variant")
    return Variant(
        files["name"],
        InputSize.parse(files["size"]),
        files["precision"],
        Path(files["xml"]),
        Path(files["bin"]),
        files["digest"],
    )
