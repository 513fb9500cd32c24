"""Import OpenVINO without its telemetry, and check that it uses the CPUs of this process.

Only a process that runs the network may import this module: OpenVINO reads its set of CPUs once, from the affinity mask
of the main thread, and keeps it across a fork. Set the mask first, then import.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any, cast

from worker.contract.errors import PlacementError
from worker.contract.log_fields import event
from worker.cpu.kernel import format_cpu_list

log = logging.getLogger(__name__)


def _import_openvino() -> Any:
    """Import OpenVINO with its telemetry package hidden, so that OpenVINO uses its own stub.

    A plain import starts a thread, writes to the home folder and reports the import to a web service.
    """
    if "openvino" in sys.modules and sys.modules.get("openvino_telemetry") is not None:
        log.warning(
            "openvino was imported before worker.model.inference.runtime", extra=event("openvino_telemetry_active")
        )
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    return importlib.import_module("openvino")


ov = _import_openvino()

_MORE_THREADS_THAN_CPUS = 1 << 15
"""Thread count requested in the probe: OpenVINO grants the number of CPUs that it sees. Linux allows at most 8192."""


def version() -> str:
    """Return the version of the OpenVINO wheel, as pip shows it."""
    return importlib.metadata.version("openvino")


def core() -> Any:
    """Return the only Core of this process, which lives as long as the process.

    A second Core is a hazard. The CPU plugin of each Core (seen with 2026.4.1) gives the thread that creates it a stack
    for signal handlers, and unmaps that stack when the Core is destroyed, on any thread and in any order. If the main
    thread is left with an unmapped stack, the next signal with a handler, SIGTERM or SIGINT, ends the process by
    SIGSEGV without a trace: neither a Python handler nor `faulthandler` can run.

    Raises:
        PlacementError: this process was forked from one that has a Core. The threads of that Core do not exist here,
            and OpenVINO would wait for them forever.
    """
    pid = os.getpid()
    if pid not in _cores:
        if _cores:
            raise PlacementError(
                f"OpenVINO was used in process {next(iter(_cores))} before this one was forked from it, and cannot run "
                "here: start a new process (subprocess, or multiprocessing with spawn), or fork before the first use"
            )
        _cores[pid] = ov.Core()
    return _cores[pid]


_cores: dict[int, Any] = {}
"""Process id -> Core. A forked process finds the entry of its parent."""


@functools.cache
def add_extension(path: str) -> None:
    """Register the operations of a library with the Core, once per process."""
    core().add_extension(path)


def fold_constants(model: Any) -> None:
    """Replace every part of a graph that does not depend on its input by a constant."""
    passes: Any = importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)


def check_placement(threads: int) -> None:
    """Check that OpenVINO sees exactly the CPUs of this process, and that they are enough for `threads`.

    Raises:
        PlacementError: the mask has fewer CPUs than threads, or OpenVINO does not follow the mask.
    """
    mask = os.sched_getaffinity(os.getpid())
    if os.sched_getaffinity(0) != mask:
        raise PlacementError(
            "the affinity mask of this thread differs from that of the main thread, which OpenVINO follows; set the "
            "affinity of the whole process (taskset, cpuset) before it starts"
        )
    allowed = f"{len(mask)} CPUs ({format_cpu_list(mask)})"
    if threads > len(mask):
        raise PlacementError(
            f"{threads} inference threads requested, but this process may use {allowed}; lower "
            "MASKMILL_PLAN__THREADS or give the process more cores"
        )
    visible = visible_cpus()
    if visible != len(mask):
        raise PlacementError(
            f"OpenVINO sees {visible} CPUs, but the affinity mask of this process has {allowed}; set the mask before "
            "OpenVINO is first used in this process or its parent, and unset KMP_AFFINITY, OMP_PROC_BIND and "
            "GOMP_CPU_AFFINITY"
        )


def visible_cpus() -> int:
    """Return the number of logical CPUs that OpenVINO uses: the threads it grants for a request of far too many."""
    # Pinned, as in the engine: without pinning, and with one older thread that has a wider mask, the threads that
    # OpenVINO creates here run outside the mask (seen with 2026.4.1).
    parameter = ov.opset13.parameter([1, 8], ov.Type.f32)
    model = ov.Model([ov.opset13.result(ov.opset13.relu(parameter))], [parameter], "probe")
    properties = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": _MORE_THREADS_THAN_CPUS,
        "ENABLE_HYPER_THREADING": True,
        "ENABLE_CPU_PINNING": True,
    }
    return int(core().compile_model(model, "CPU", properties).get_property("INFERENCE_NUM_THREADS"))


def stray_threads() -> int:
    """Return the number of threads that may run outside the mask of the main thread, being older than that mask."""
    mask = os.sched_getaffinity(os.getpid())
    strays = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            strays += not os.sched_getaffinity(int(task.name)) <= mask
        except ProcessLookupError:  # the thread has ended
            continue
    return strays


def compile_key(*parts: str) -> str:
    """Return the cache key of a compiled model, 32 hex digits.

    It depends on OpenVINO's version, the instruction sets of the CPU, and `parts`.
    """
    isa = (cpu_flags(), os.environ.get("ONEDNN_MAX_CPU_ISA", ""))
    return hashlib.sha256("\n".join((ov.__version__, platform.machine(), *isa, *parts)).encode()).hexdigest()[:32]


def cpu_flags() -> str:
    """Return the sorted instruction set flags of the first CPU (`flags` on x86, `Features` on Arm)."""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return " ".join(sorted(value.split()))
    return platform.processor()
