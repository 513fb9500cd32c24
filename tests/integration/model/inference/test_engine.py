"""The engine under several threads, its facts, and its errors."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from integration.model.tiny_network import SIZE, build, noise, plain_grey, save
from worker.contract.errors import InferenceFailed, PlacementError
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference import runtime
from worker.model.inference.engine import Engine
from worker.model.inference.runtime import ov

CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def variant(tmp_path_factory) -> Variant:
    return save(build(), tmp_path_factory.mktemp("tiny"))


def load(variant: Variant, **changes) -> Engine:
    return Engine.load(variant, **({"streams": 1, "threads": 1, "inference_precision": "f32"} | changes))


@pytest.mark.parametrize("streams", [1, pytest.param(2, marks=pytest.mark.skipif(CPUS < 2, reason="needs 2 CPUs"))])
def test_threads_get_the_result_of_their_own_picture(variant, streams):
    pictures = [noise(seed) for seed in range(24)]
    expected = [plain_grey(variant, picture).astype(int) for picture in pictures]

    with load(variant, streams=streams, threads=streams) as engine, ThreadPoolExecutor(6) as pool:
        results = list(pool.map(engine.infer, pictures * 4))

    for i, result in enumerate(results):
        assert np.abs(result - expected[i % len(pictures)]).max() <= 1


def test_a_result_is_not_overwritten_by_the_next_run(variant):
    with load(variant) as engine:
        first = engine.infer(noise(1))
        copy = first.copy()
        for seed in range(2, 2 + 2 * engine.requests):
            engine.infer(noise(seed))

    assert np.array_equal(first, copy)
    assert first.base is None or first.base.base is None


def test_a_picture_that_is_not_contiguous_is_accepted(variant):
    picture = noise(3)

    with load(variant) as engine:
        assert np.array_equal(engine.infer(picture[:, :, ::-1]), engine.infer(picture[:, :, ::-1].copy()))


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
    ],
)
def test_a_tensor_of_another_kind_is_refused(variant, tensor):
    with load(variant) as engine, pytest.raises(InferenceFailed, match=r"expected a u8 tensor \(1, 64, 64, 3\), got"):
        engine.infer(tensor)


class BrokenRequest:
    """A request that fails in the given stage, as with a kernel that raises."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def start_async(self, *_args, **_kwargs) -> None:
        if self._stage == "start":
            raise RuntimeError("the kernel gave up")

    def wait(self) -> None:
        raise RuntimeError("the kernel gave up")


@pytest.mark.parametrize("stage", ["start", "wait"])
def test_a_failure_affects_one_image_and_returns_the_request(variant, stage):
    with load(variant) as engine:
        engine._idle.get()
        engine._idle.put(BrokenRequest(stage))
        failures = 0
        for seed in range(3 * engine.requests):
            try:
                engine.infer(noise(seed))
            except InferenceFailed as error:
                assert "tiny 64 fp32 failed on this image: the kernel gave up" in str(error)
                failures += 1

    assert failures == 3


def test_one_request_more_than_streams_and_the_next_caller_waits(variant):
    with load(variant) as engine:
        assert engine.requests == 2
        borrowed = [engine._idle.get() for _ in range(2)]
        waiting = threading.Thread(target=engine.infer, args=(noise(1),))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()

        for request in borrowed:
            engine._idle.put(request)
        waiting.join(10)
        assert not waiting.is_alive()


def test_a_closed_engine_raises_and_closing_twice_is_harmless(variant):
    engine = load(variant)
    engine.close()
    engine.close()

    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            engine.infer(noise(1))


def test_closing_waits_for_the_pictures_in_flight(variant):
    engine = load(variant)
    request = engine._idle.get()
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()

    engine._idle.put(request)
    closing.join(10)
    assert not closing.is_alive()


def test_it_tells_what_runs(variant):
    with load(variant) as engine:
        engine.warm_up()
        facts = json.loads(json.dumps(engine.describe()))

    assert facts | {"model": "tiny", "size": SIZE, "precision": "fp32", "digest": "0" * 64} == facts
    assert (facts["streams"], facts["threads"], facts["requests"]) == (1, 1, 2)
    assert (facts["inference_precision_requested"], facts["inference_precision"]) == ("f32", "f32")
    assert facts["openvino"] == ov.__version__
    assert facts["load_seconds"] > 0
    assert facts["loaded_from_cache"] is False
    assert facts["notes"] == []
    assert sum(facts["execution_types"].values()) == sum(facts["runtime_precisions"].values()) >= 3
    assert not any("unknown" in name for name in facts["execution_types"])


@pytest.mark.parametrize("asked", ["bf16", "f16"])
def test_a_precision_that_this_cpu_lacks_is_announced(variant, caplog, asked):
    native = {"bf16": "BF16", "f16": "FP16"}[asked] in runtime.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    with load(variant, inference_precision=asked) as engine:
        facts = engine.describe()

    assert facts["inference_precision_requested"] == asked
    assert bool(facts["notes"]) is not native
    assert (f"{asked} was requested" in caplog.text or f"{asked} is simulated" in caplog.text) is not native


def test_more_threads_than_cpus_are_refused(variant):
    with pytest.raises(PlacementError, match=rf"{CPUS + 1} inference threads requested, .* {CPUS} CPUs"):
        load(variant, threads=CPUS + 1)


def test_streams_without_a_thread_of_their_own_are_refused(variant):
    with pytest.raises(PlacementError, match=r"requested 2 streams with 1 threads in total, OpenVINO grants"):
        load(variant, streams=2, threads=1)


def test_a_network_that_is_not_square(tmp_path):
    size = InputSize(64, 96)
    variant = save(build(size=size), tmp_path, size=size)
    picture = noise(5, size)

    with load(variant) as engine:
        grey = engine.infer(picture)
        facts = engine.describe()

    assert grey.shape == (64, 96)
    assert np.abs(grey.astype(int) - plain_grey(variant, picture)).max() <= 1
    assert (facts["size"], variant.label) == ("64x96", "tiny 64x96 fp32")
