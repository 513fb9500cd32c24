"""The networks that the worker's own engine runs, timed and profiled. Runs in a child process only."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference import deformable
from worker.model.inference.engine import Engine
from worker.model.inference.graph import prepare
from worker.model.inference.runtime import core

_PROFILED_RUNS = 3


class _EngineNetwork:
    """Production code: the engine, called by as many threads as it has requests."""

    def __init__(self, engine: Engine, image: Any) -> None:
        self._engine, self._image = engine, image
        self.callers = engine.requests

    def infer(self) -> object:
        return self._engine.infer(self._image)

    def facts(self) -> dict[str, Any]:
        return self._engine.describe()


def open_network(request: dict[str, Any]) -> _EngineNetwork:
    """The engine of `request`: `variant`, `arithmetic`, `streams`, `threads` and `image` (u8 `[1, R, R, 3]`, .npy).

    Raises:
        MaskmillError: from the engine.
    """
    engine = Engine.load(
        _variant(request),
        streams=request["streams"],
        threads=request["threads"],
        inference_precision=request["arithmetic"],
        kernels=request["kernels"],
    )
    return _EngineNetwork(engine, np.load(request["image"]))


def profile(request: dict[str, Any]) -> dict[str, Any]:
    """Where the time goes: one stream, per-node counters on, which slows the whole; read shares, not seconds.

    Returns:
        `node_types`: largest first, each with `node_type`, `milliseconds` of one image, `share` of the sum, `nodes`
        and `kernels` (execution type -> milliseconds).
    """
    properties = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": request["threads"],
        "INFERENCE_PRECISION_HINT": request["arithmetic"],
        "ENABLE_HYPER_THREADING": False,
        "PERF_COUNT": True,
    }
    variant = _variant(request)
    try:
        model = prepare(variant).model
        deformable.replace(
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


def node_types(kernels: dict[str, Counter[str]], nodes: Counter[str], runs: int) -> list[dict[str, Any]]:
    """Sum microseconds by node type and kernel over `runs` into rows, largest first."""
    total = sum(counter.total() for counter in kernels.values()) or 1
    rows = [
        {
            "node_type": kind,
            "milliseconds": round(counter.total() / 1000 / runs, 3),
            "share": round(counter.total() / total, 4),
            "nodes": nodes[kind],
            "kernels": {name: round(micro / 1000 / runs, 3) for name, micro in counter.most_common()},
        }
        for kind, counter in kernels.items()
    ]
    return sorted(rows, key=lambda row: -float(str(row["share"])))


def _variant(request: dict[str, Any]) -> Variant:
    facts = request["variant"]
    return Variant(
        facts["name"],
        InputSize.parse(facts["size"]),
        facts["precision"],
        Path(facts["xml"]),
        Path(facts["bin"]),
        facts["digest"],
    )
