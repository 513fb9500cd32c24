"""Contenders in child processes: they are pinned, load, take turns, and fail with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from integration.model.tiny_network import MEAN, SCALE, SIZE, build, noise, save
from worker.bench.benchmark_app import BenchmarkApp
from worker.bench.contenders import Contender
from worker.bench.harness.process import Child, Contestant, environment, once
from worker.bench.openvino_network import node_types
from worker.contract.errors import SetupError
from worker.images.tensor import normalise


@pytest.fixture(autouse=True)
def _children_find_the_package(monkeypatch):
    """So that child processes import the package even where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def request_(tmp_path) -> dict:
    """Request for a tiny network: one stream on one CPU."""
    variant = save(build(), tmp_path)
    pixels = noise(1)
    np.save(tmp_path / "image.npy", pixels)
    np.save(tmp_path / "normalised.npy", normalise(pixels, MEAN, SCALE))
    return Contender("tiny", "openvino", "ours", "f32", variant).request() | {
        "cpus": [min(os.sched_getaffinity(0))],
        "streams": 1,
        "threads": 1,
        "image": str(tmp_path / "image.npy"),
        "normalised": str(tmp_path / "normalised.npy"),
    }


def test_a_contestant_describes_what_it_runs_and_takes_turns(request_, tmp_path):
    contestant = Contestant(request_, images=4, log=tmp_path / "log")

    sample = contestant.turn()

    assert contestant.facts["size"] == SIZE and contestant.facts["inference_precision"] == "f32"
    assert contestant.facts["execution_types"]
    assert sample.images == 4 and sample.wall_seconds > 0
    assert sample.cpu_seconds > 0
    assert contestant.peak_memory_bytes > 2**20


def test_a_contestant_leaves_no_process_between_turns(request_, tmp_path):
    contestant = Contestant(request_, images=1, log=tmp_path / "log")
    before = set(psutil.Process().children())

    contestant.turn()

    assert set(psutil.Process().children()) == before


def test_a_contestant_is_pinned(request_, tmp_path):
    with pytest.raises(SetupError, match="CPUs 99999"):
        Contestant(request_ | {"cpus": [99999]}, images=1, log=tmp_path / "log").turn()


def test_a_network_that_cannot_be_loaded_is_an_error_with_its_reason(request_, tmp_path):
    Path(request_["variant"]["xml"]).write_text("<no IR>")

    with pytest.raises(SetupError, match="cannot be read as an OpenVINO IR"):
        Contestant(request_, images=1, log=tmp_path / "log").turn()


def test_a_killed_child_is_an_error_and_can_be_closed(request_, tmp_path):
    child = Child(request_, tmp_path / "log")
    child._process.kill()
    child._process.wait()

    with pytest.raises(SetupError, match="ended with -9"):
        child.run(1)
    child.close()


def test_a_child_ends_with_its_parent(request_, tmp_path):
    # Busy for long: it would notice the end of its input only after these images.
    script = (
        "import json, sys, time; from pathlib import Path; from worker.bench.harness.process import Child;"
        "child = Child(json.loads(sys.argv[1]), Path(sys.argv[2]));"
        "print(json.dumps({'images': 300000}), file=child._process.stdin, flush=True);"
        "print(child._process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, json.dumps(request_), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    assert psutil.wait_procs([child], timeout=5)[1] == []


@pytest.mark.parametrize(("requested", "found"), [(True, "glibc.malloc.hugetlb=1"), (False, None)])
def test_huge_pages_are_requested_or_not(monkeypatch, requested, found):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)

    assert environment(huge_pages=requested).get("GLIBC_TUNABLES") == found


def test_an_unknown_job_is_an_error_that_quotes_the_log(tmp_path):
    with pytest.raises(SetupError, match="KeyError"):
        once({"job": "no such job", "cpus": [min(os.sched_getaffinity(0))]}, tmp_path / "log")


def test_benchmark_app_runs_the_same_file_and_number_of_images(request_, tmp_path):
    app = BenchmarkApp(request_, images=4, log=tmp_path / "log")

    sample = app.turn()

    assert sample.images == 4 and sample.wall_seconds > 0 and sample.cpu_seconds > 0
    assert app.peak_memory_bytes > 2**20
    log = (tmp_path / "log").read_text()
    assert "NUM_STREAMS: 1" in log and "INFERENCE_PRECISION_HINT: <Type: 'float32'>" in log


def test_benchmark_app_sends_no_telemetry(request_, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    BenchmarkApp(request_, images=2, log=tmp_path / "log").turn()

    assert list((tmp_path / "home").iterdir()) == []


def test_benchmark_app_that_fails_is_an_error_with_its_reason(request_, tmp_path):
    np.save(request_["normalised"], np.zeros((1, 3, 8, 8), np.float32))

    with pytest.raises(SetupError, match="shape"):
        BenchmarkApp(request_, images=2, log=tmp_path / "log").turn()


def test_a_profile_names_the_node_types(request_, tmp_path):
    rows = once(request_ | {"job": "profile"}, tmp_path / "log")["node_types"]

    assert "Convolution" in {row["node_type"] for row in rows}
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01)
    shares = [row["share"] for row in rows]
    assert shares == sorted(shares, reverse=True)


def test_node_types_are_summed_over_kernels_and_averaged_over_runs():
    kernels = {"Convolution": Counter({"jit": 5000.0, "ref": 1000.0}), "Concat": Counter({"ref": 2000.0})}

    rows = node_types(kernels, Counter({"Convolution": 3, "Concat": 1}), runs=2)

    assert rows == [
        {
            "node_type": "Convolution",
            "milliseconds": 3.0,
            "share": 0.75,
            "nodes": 3,
            "kernels": {"jit": 2.5, "ref": 0.5},
        },
        {"node_type": "Concat", "milliseconds": 1.0, "share": 0.25, "nodes": 1, "kernels": {"ref": 1.0}},
    ]
