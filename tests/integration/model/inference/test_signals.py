"""A signal with a handler reaches a process after its networks are destroyed: OpenVINO's handler stacks stay valid.

Each case runs in a separate interpreter, because a failure ends it by SIGSEGV.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

NETWORKS = """
import os, signal, threading
import numpy as np
from worker.model.inference import runtime
from worker.model.inference.runtime import ov

got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))

def network():
    x = ov.opset13.parameter([1, 8], ov.Type.f32)
    model = ov.Model([ov.opset13.result(ov.opset13.relu(x))], [x], "n")
    return MAKE.compile_model(model, "CPU")

held = [network(), network()]
"""
"""Code that creates two networks."""

GONE = {
    "on another thread": "thread = threading.Thread(target=held.clear); thread.start(); thread.join()",
    "in the order they came": "del held[0]; del held[0]",
}
HEARD = """
os.kill(os.getpid(), signal.SIGTERM)
assert got == [1]
"""


def return_code(core: str, gone: str) -> int:
    code = NETWORKS.replace("MAKE", core) + gone + HEARD
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode <= 0, done.stderr
    return done.returncode


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
def test_a_signal_is_handled_after_networks_are_destroyed(gone):
    assert return_code("runtime.core()", gone) == 0


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
def test_with_a_core_for_each_network_the_signal_kills(gone):
    """The control run. If it fails, OpenVINO has fixed the problem and `runtime.core` may be removed."""
    assert return_code("ov.Core()", gone) == -signal.SIGSEGV
