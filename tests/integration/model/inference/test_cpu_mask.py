"""OpenVINO stays on the CPUs of its process; a case in which it would not raises an error.

Each case runs in a separate interpreter, because the set of CPUs is read once per process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.model.tiny_network import build, save

ROOT = Path(__file__).parents[4]
CPUS = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="a mask needs 2 CPUs to leave one out")

COMMON = """
import json, os, sys, threading, time
from pathlib import Path

def load(threads=1):
    from worker.contract.input_size import InputSize
    from worker.model.format.variant import Variant
    from worker.model.inference.engine import Engine
    xml = Path(sys.argv[1])
    variant = Variant("tiny", InputSize.square(64), "fp32", xml, xml.with_suffix(".bin"), "0" * 64)
    return Engine.load(variant, streams=1, threads=threads, inference_precision="f32")

def report(value):
    sys.stdout.write(json.dumps(value)); sys.stdout.flush()

def refusal(threads=1):
    from worker.contract.errors import PlacementError
    try:
        load(threads).close()
    except PlacementError as error:
        return str(error)
    return "no refusal"

FIRST, SECOND = sorted(os.sched_getaffinity(0))[:2]
"""

IN_FLIGHT = """
os.sched_setaffinity(0, {int(sys.argv[2])})
import numpy as np
engine, stop = load(), threading.Event()
picture = np.zeros((1, 64, 64, 3), np.uint8)

def work():
    while not stop.is_set():
        engine.infer(picture)

def busy():
    tasks = {}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        tasks[task.name] = int(fields[11]) + int(fields[12])
    return tasks

workers = [threading.Thread(target=work) for _ in range(engine.requests)]
for worker in workers: worker.start()
before, masks, until = busy(), {}, time.monotonic() + 1.0
while time.monotonic() < until:
    for task in before:
        masks.setdefault(task, set()).update(os.sched_getaffinity(int(task)))
after = busy()
stop.set()
for worker in workers: worker.join()
engine.close()
report({"all": sorted(set().union(*masks.values())),
      "busy": sorted(set().union(*(masks[t] for t in before if after.get(t, 0) > before[t])))})
"""


@pytest.fixture(scope="module")
def xml(tmp_path_factory) -> Path:
    return save(build(), tmp_path_factory.mktemp("tiny")).xml


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMON + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answer(process: subprocess.Popen[str]):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def test_processes_side_by_side_keep_to_their_own_cpus(xml):
    pair = [start(IN_FLIGHT, xml, cpu) for cpu in CPUS[:2]]

    first, second = (answer(process) for process in pair)

    assert (first["busy"], second["busy"]) == ([CPUS[0]], [CPUS[1]])
    assert (first["all"], second["all"]) == ([CPUS[0]], [CPUS[1]])


def test_a_mask_too_small_for_the_threads_is_refused(xml):
    refused = answer(start("os.sched_setaffinity(0, {SECOND})\nreport(refusal(threads=2))", xml))

    assert refused.startswith(f"2 inference threads requested, but this process may use 1 CPUs ({CPUS[1]})")


LATE = {
    "narrowed after a first use": """
from worker.model.inference.runtime import visible_cpus
visible_cpus()
os.sched_setaffinity(0, {SECOND})
report(refusal())
""",
    "forked from a process that used it": """
from worker.model.inference.runtime import visible_cpus
visible_cpus()
child = os.fork()
if child == 0:
    os.sched_setaffinity(0, {SECOND})
    report(refusal())
    os._exit(0)
os.waitpid(child, 0)
""",
    "set in another thread only": """
def narrowed():
    os.sched_setaffinity(0, {SECOND})
    report(refusal())
thread = threading.Thread(target=narrowed)
thread.start()
thread.join()
""",
}


WHY = {
    "narrowed after a first use": "set the mask before OpenVINO is first used",
    "forked from a process that used it": "start a new process",
    "set in another thread only": "that of the main thread, which OpenVINO follows",
}


@pytest.mark.parametrize("case", LATE)
def test_a_mask_that_openvino_does_not_follow_is_refused(xml, case):
    assert WHY[case] in answer(start(LATE[case], xml))


def test_threads_older_than_the_mask_are_told(xml):
    code = """
early = threading.Thread(target=time.sleep, args=(30,), daemon=True)
early.start()
os.sched_setaffinity(0, {SECOND})
report(load().describe()["notes"])
sys.stdout.flush(); os._exit(0)
"""
    (note,) = answer(start(code, xml))

    assert note == "1 threads made before the CPU mask was set may run outside it"


def test_importing_the_engine_sends_no_telemetry(tmp_path):
    code = """
import worker.model.inference.engine
report({"stub": "openvino.tools.ovc.telemetry_stub" in sys.modules,
      "telemetry": sorted(m for m in sys.modules if m.startswith("openvino_telemetry.")),
      "threads": threading.active_count()})
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-c", COMMON + code]
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert json.loads(output) == {"stub": True, "telemetry": [], "threads": 1}
    assert list(tmp_path.iterdir()) == []


def test_finding_a_bundle_does_not_load_openvino():
    code = """
import worker.model.sources.bundles
report(sorted({"openvino", "numpy"} & set(sys.modules)))
"""
    assert answer(start(code)) == []
