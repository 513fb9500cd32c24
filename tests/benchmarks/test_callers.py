"""Several threads that each run one image must be as fast as OpenVINO's own queue of requests.

Pitfall 15 of infra/decisions/2026-11-24-pitfalls-of-cpu-inference.md.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from integration.model.tiny_network import build, save
from worker.model.inference.engine import Engine
from worker.model.inference.graph import prepare
from worker.model.inference.runtime import core, ov

SIZE, IMAGES, ROUNDS = 512, 400, 5


def test_threads_of_the_engine_keep_up_with_the_async_queue(tmp_path):
    streams = len(os.sched_getaffinity(0))
    variant = save(build(size=SIZE), tmp_path, size=SIZE)
    image = np.random.default_rng(1).integers(0, 255, (1, SIZE, SIZE, 3), np.uint8)
    options = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams, "INFERENCE_PRECISION_HINT": "f32"}
    queue = ov.AsyncInferQueue(core().compile_model(prepare(variant).model, "CPU", options), streams + 1)
    ratios = []
    with (
        Engine.load(variant, streams=streams, threads=streams, inference_precision="f32") as engine,
        ThreadPoolExecutor(engine.requests) as pool,
    ):
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(IMAGES):
                queue.start_async({0: image})
            queue.wait_all()
            middle = time.perf_counter()
            list(pool.map(engine.infer, [image] * IMAGES))
            ratios.append((middle - began) / (time.perf_counter() - middle))

    assert statistics.median(ratios) > 0.9, ratios
