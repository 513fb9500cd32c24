"""A node whose network never gets ready takes no chunk: another node runs them, and the job ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import commands
from support.fault_timing import FAST
from support.small_jobs import submit
from worker.contract.job import JobStatus
from worker.model.inference.runtime import ov

SIZE = 64


def endless_bundle(folder: Path) -> Path:
    """Write a bundle whose network adds zero to the picture for ever."""
    ops = ov.opset13
    image = ops.parameter([1, 3, SIZE, SIZE], ov.Type.f32, name="image")
    grey = ops.reduce_mean(image, ops.constant([1], ov.Type.i64), keep_dims=True)
    inner, again = ops.parameter([1, 1, SIZE, SIZE], ov.Type.f32), ops.constant(True, ov.Type.boolean)
    body = ov.Model([ops.result(ops.add(inner, ops.constant(0.0, ov.Type.f32))), ops.result(again)], [inner], "body")
    loop = ops.loop(ops.constant(-1, ov.Type.i64), ops.constant(True, ov.Type.boolean))
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(inner, grey.output(0), body.results[0].output(0))
    network = ov.Model([ops.result(loop.get_iter_value(body.results[0].output(0), -1))], [image], "endless")
    place = folder / "openvino_fp32" / f"endless_{SIZE}x{SIZE}_fp32.xml"
    place.parent.mkdir(parents=True)
    ov.save_model(network, str(place), compress_to_fp16=False)
    return folder


@pytest.mark.timeout(300)
def test_a_node_without_its_network_leaves_the_chunks_to_others(installation, ledger, tmp_path):
    usual = installation.environment | FAST
    endless = usual | {
        "MASKMILL_MODEL__SOURCE": str(endless_bundle(tmp_path / "bundle")),
        "MASKMILL_WORKER__NODE_NAME": "endless",
        "MASKMILL_WORKER__GRACE_SECONDS": "2",
    }
    log = tmp_path / "endless.log"
    with commands.workers(endless, log):
        commands.wait_for(lambda: "worker-0@endless ready" in log.read_text(), "the connection to the queue", 120)
        job = submit(installation, 4, chunk=2)
        with commands.workers(usual | {"MASKMILL_WORKER__NODE_NAME": "usual"}, tmp_path / "usual.log"):
            ended = commands.wait_for(lambda: (view := ledger.view(job)).ended and view, "the job to end", 120)
        text = log.read_text()

    assert (ended.status, ended.ok) == (JobStatus.FINISHED, 4)
    assert "event=model_loaded" not in text and "received" not in text
