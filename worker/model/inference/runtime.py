"""OpenVINO as this project uses it: imported without its telemetry, on the CPUs this process was given.

Only `engine`, `graph` and `deformable` stand on this, and only a process that runs the network may import them:
OpenVINO reads its set of CPUs once, from the main thread's affinity mask, and keeps it across fork. So: mask first,
then this import.
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
    """Import OpenVINO with its telemetry package hidden; its own stub takes the place.

    Importing it plainly starts a thread, writes to the home folder and reports the import to a web service.
    """
    if "openvino" in sys.modules and sys.modules.get("openvino_telemetry") is not None:
        log.warning(
            "openvino was imported before worker.model.inference.runtime", extra=event("openvino_telemetry_active")
        )
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    return importlib.import_module("openvino")


ov = _import_openvino()

_MORE_THREADS_THAN_CPUS = 1 << 15
"""Asked for in the probe: OpenVINO answers with the CPUs it sees. Linux allows at most 8192."""


def version() -> str:
    """Of the OpenVINO wheel, as pip names it."""
    return importlib.metadata.version("openvino")


def core() -> Any:
    """The one Core of this process, which lives as long as the process.

    Every other is a hazard: the CPU plugin of each (seen with 2026.4.1) gives the thread that makes it a stack for
    signal handlers, and unmaps it when it is destroyed, on whatever thread and in whatever order that happens. If the
    main thread is left with that stack, the next signal with a handler, SIGTERM or SIGINT, ends the process by SIGSEGV
    and without a trace: neither a Python handler nor `faulthandler` can run.

    Raises:
        PlacementError: this process was forked from one that has a Core. Its threads stayed behind, and OpenVINO would
            wait for them for ever.
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
"""By process; one forked from another finds that other's."""


@functools.cache
def add_extension(path: str) -> None:
    """Teach the Core the operations of a library, once."""
    core().add_extension(path)


def check_placement(threads: int) -> None:
    """Make sure that OpenVINO sees exactly this process's CPUs, and that there are enough of them.

    Raises:
        PlacementError: the mask has fewer CPUs than threads, or OpenVINO does not follow the mask.
    """
    mask = os.sched_getaffinity(os.getpid())
    if os.sched_getaffinity(0) != mask:
        raise PlacementError(
            "this thread may run on other CPUs than the main thread, and OpenVINO follows the main thread; set the "
            "affinity of the whole process (taskset, cpuset) before it starts"
        )
    allowed = f"{len(mask)} CPUs ({format_cpu_list(mask)})"
    if threads > len(mask):
        raise PlacementError(
            f"{threads} inference threads asked for, this process may use {allowed}; lower "
            "MASKMILL_PLAN__THREADS or give the process more cores"
        )
    visible = visible_cpus()
    if visible != len(mask):
        raise PlacementError(
            f"OpenVINO sees {visible} CPUs, the affinity mask of this process has {allowed}; set the mask before "
            "OpenVINO is first used in this process or its parent, and unset KMP_AFFINITY, OMP_PROC_BIND and "
            "GOMP_CPU_AFFINITY"
        )


def visible_cpus() -> int:
    """Logical CPUs that OpenVINO would use: the thread count it grants when asked for far too many."""
    # Pinned, as the engine is: unpinned, and with one older thread whose mask is wider, the threads that OpenVINO makes
    # here run outside the mask (seen with 2026.4.1).
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
    """Threads of this process that may run outside the main thread's mask (made before the mask was set)."""
    mask = os.sched_getaffinity(os.getpid())
    strays = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            strays += not os.sched_getaffinity(int(task.name)) <= mask
        except ProcessLookupError:  # ended meanwhile
            continue
    return strays


def compile_key(*parts: str) -> str:
    """Name for what was compiled here: changes with OpenVINO's version, the CPU's instruction sets and `parts`."""
    isa = (_cpu_flags(), os.environ.get("ONEDNN_MAX_CPU_ISA", ""))
    return hashlib.sha256("\n".join((ov.__version__, platform.machine(), *isa, *parts)).encode()).hexdigest()[:32]


def _cpu_flags() -> str:
    """Instruction set flags of the first CPU, sorted (`flags` on x86, `Features` on Arm)."""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return " ".join(sorted(value.split()))
    return platform.processor()
