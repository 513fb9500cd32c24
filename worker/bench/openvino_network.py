"""Networks on the worker's own engine, to time and to profile. Runs in a child process only."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from worker.bench.harness.requests import NetworkRequest, variant_of
from worker.contract.errors import BundleError
from worker.model.inference.engine import Engine, FloatPrecision
from worker.model.inference.graph import prepare
from worker.model.inference.native import replacements
from worker.model.inference.runtime import core

if TYPE_CHECKING:  # a child process needs no plot style in its memory
    from worker.bench.model_report import NodeType

_PROFILED_RUNS = 3


class _EngineNetwork:
    """The production engine, called by as many threads as it has requests."""

    def __init__(self, engine: Engine, image: Any) -> None:
        self._engine, self._image = engine, image
        self.callers = engine.requests

    def infer(self) -> object:
        return self._engine.infer(self._image)

    def facts(self) -> dict[str, Any]:
        return self._engine.describe()


def open_network(request: NetworkRequest) -> _EngineNetwork:
    """Load `variant` with `arithmetic`, `kernels`, `streams` and `threads`, and read `image`.

    Raises:
        MaskmillError: the engine cannot load it.
    """
    engine = Engine.load(
        variant_of(request),
        streams=request["streams"],
        threads=request["threads"],
        inference_precision=cast(FloatPrecision, request["arithmetic"]),
        kernels=request["kernels"],
    )
    return _EngineNetwork(engine, np.load(request["image"]))


def profile(request: NetworkRequest) -> dict[str, list[NodeType]]:
    """Measure the time of every node type in one stream, from OpenVINO's per-node counters.

    The counters slow the network down, so read shares rather than seconds.

    Returns:
        `node_types`, largest first.

    Raises:
        BundleError: the network cannot be compiled with counters.
    """
    properties = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": request["threads"],
        "INFERENCE_PRECISION_HINT": request["arithmetic"],
        "ENABLE_HYPER_THREADING": False,
        "PERF_COUNT": True,
    }
    variant = variant_of(request)
    try:
        model = prepare(variant).model
        replacements.replace(
            model, mode=request["kernels"], int8=variant.precision == "int8", floats=request["arithmetic"]
        )
        compiled = core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise BundleError(f"{variant.label} cannot be compiled with counters: {error}") from error
    infer, image = compiled.create_infer_request(), np.load(request["image"])
    infer.infer({0: image})
    kernels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    nodes: Counter[str] = Counter()
    for run in range(_PROFILED_RUNS):
        infer.infer({0: image})
        for node in infer.get_profiling_info():
            if node.real_time:
                kernels[node.node_type][node.exec_type] += node.real_time / timedelta(microseconds=1)
                nodes[node.node_type] += run == 0
    return {"node_types": node_types(kernels, nodes, _PROFILED_RUNS)}


def node_types(kernels: dict[str, Counter[str]], nodes: Counter[str], runs: int) -> list[NodeType]:
    """Sum the time by node type, averaged over the runs.

    Args:
        kernels: microseconds in all runs, by node type and kernel.
        nodes: number of nodes by type.
        runs: number of runs.

    Returns:
        Node types, largest first.
    """
    total = sum(counter.total() for counter in kernels.values()) or 1
    rows: list[NodeType] = [
        {
            "node_type": kind,
            "milliseconds": round(counter.total() / 1000 / runs, 3),
            "share": round(counter.total() / total, 4),
            "nodes": nodes[kind],
            "kernels": {name: round(micro / 1000 / runs, 3) for name, micro in counter.most_common()},
        }
        for kind, counter in kernels.items()
    ]
    return sorted(rows, key=lambda row: -row["share"])
