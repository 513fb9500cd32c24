"""The engine with the native kernel: its results, facts, cache and CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from integration.model.tiny_network import MEAN, SCALE, SIZE, noise
from support import kernels
from worker.contract.input_size import InputSize
from worker.kernels import library as built
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
from worker.model.inference.runtime import ov

pytestmark = pytest.mark.usefixtures("library")

ROOT = Path(__file__).parents[3]
CPUS = sorted(os.sched_getaffinity(0))


def network() -> ov.Model:
    """Build a network from pixels to one channel of logits, with a 3x3 deformable convolution."""
    ops, rng = kernels.ops, np.random.default_rng(5)
    image = ops.parameter([1, 3, SIZE, SIZE], ov.Type.f32, name="image")

    def weights(outputs: int, inputs: int, side: int, gain: float = 0.4) -> ov.Node:
        return ops.constant(gain * rng.normal(size=(outputs, inputs, side, side)).astype(np.float32))

    x = ops.relu(ops.convolution(image, weights(64, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]))
    offsets = ops.convolution(x, weights(18, 64, 1, 0.1), [1, 1], [0, 0], [0, 0], [1, 1])
    modulator = ops.sigmoid(ops.convolution(x, weights(9, 64, 1), [1, 1], [0, 0], [0, 0], [1, 1]))
    y = ops.deformable_convolution(
        x, offsets, weights(64, 64, 3, 0.1), *[[1, 1]] * 4, modulator, bilinear_interpolation_pad=True
    )
    logits = ops.convolution(ops.relu(y), weights(1, 64, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([ops.result(logits)], [image], "deformable")
    for key, values in (("mean_values", MEAN), ("scale_values", SCALE)):
        model.set_rt_info(" ".join(map(str, values)), ["model_info", key])
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "fp16"])
def variant(request, tmp_path_factory) -> Variant:
    xml = tmp_path_factory.mktemp("deformable") / "deformable.xml"
    ov.save_model(network(), str(xml), compress_to_fp16=request.param)
    return Variant(
        "deformable",
        InputSize.square(SIZE),
        "fp16" if request.param else "fp32",
        xml,
        xml.with_suffix(".bin"),
        "0" * 64,
    )


def load(variant: Variant, **changes) -> Engine:
    return Engine.load(variant, **({"streams": 1, "threads": 1, "inference_precision": "f32"} | changes))


def test_the_engine_returns_the_same_mask_and_reports_what_ran(variant):
    with load(variant, kernels="off") as engine:
        want, stock = engine.infer(noise(1)), engine.describe()
    with load(variant) as engine:
        got, native = engine.infer(noise(1)), engine.describe()

    assert abs(got.astype(int) - want).max() <= 1
    assert stock["deformable_convolution"] == "1 on OpenVINO's own kernel"
    assert native["deformable_convolution"].startswith("1 of 1 on avx")
    assert not native["notes"]


def test_a_compiled_model_of_one_kernel_is_not_used_for_the_other(variant, tmp_path):
    seen = []
    for mode in ("auto", "auto", "off", "off", "auto"):
        with load(variant, cache_dir=tmp_path, kernels=mode) as engine:
            seen.append((engine.describe()["loaded_from_cache"], engine.infer(noise(2)).tobytes()))

    assert [from_cache for from_cache, _ in seen] == [False, True, False, True, True]
    assert len({grey for _, grey in (seen[0], seen[1], seen[4])}) == 1


STATES = {"gone": "are not built", "other": "were built for OpenVINO 1.2.3", "broken": "cannot be loaded"}


@pytest.mark.parametrize("state", STATES)
def test_without_a_library_the_stock_operation_runs_and_the_cost_is_noted_once(
    variant, tmp_path, monkeypatch, caplog, state
):
    if state != "gone":
        (tmp_path / built.LIBRARY).write_bytes(b"not a library")
        version = "1.2.3" if state == "other" else kernels.build._facts()["openvino"]
        (tmp_path / built.FACTS).write_text(json.dumps({"openvino": version}))
    monkeypatch.setattr(built.find, "__defaults__", (tmp_path,))

    with load(variant) as engine:
        engine.infer(noise(1))
        facts = engine.describe()

    noted = [record for record in caplog.records if STATES[state] in record.getMessage()]
    assert len(noted) == 1 and len(facts["notes"]) == 1
    assert facts["deformable_convolution"] == "1 on OpenVINO's own kernel"


IN_FLIGHT = """
import json, os, sys, threading, time
from pathlib import Path
cpu = int(sys.argv[2])
os.sched_setaffinity(0, {cpu})
import numpy as np
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
xml = Path(sys.argv[1])
variant = Variant("deformable", InputSize.square(64), "fp32", xml, xml.with_suffix(".bin"), "0" * 64)
engine = Engine.load(variant, streams=1, threads=1, inference_precision="f32")
assert engine.describe()["deformable_convolution"].startswith("1 of 1"), engine.describe()
stop, masks = threading.Event(), set()

def work():
    while not stop.is_set():
        engine.infer(np.zeros((1, 64, 64, 3), np.uint8))

workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers: worker.start()
until = time.monotonic() + 0.5
while time.monotonic() < until:
    for task in list(Path("/proc/self/task").iterdir()):
        try:
            masks |= os.sched_getaffinity(int(task.name))
        except ProcessLookupError:
            pass
stop.set()
for worker in workers: worker.join()
engine.close()
sys.stdout.write(json.dumps(sorted(masks)))
"""


@pytest.mark.skipif(len(CPUS) < 2, reason="a mask needs 2 CPUs to leave one out")
def test_the_kernel_stays_on_the_cpus_of_its_process(variant):
    command = [sys.executable, "-c", IN_FLIGHT, str(variant.xml), str(CPUS[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [CPUS[1]]
