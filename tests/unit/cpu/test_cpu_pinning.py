"""Affinity masks of real processes, and the environment variables that break them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from worker.contract.errors import PlacementError, SetupError
from worker.cpu import pinning


def test_a_process_pinned_before_exec_keeps_every_thread_on_its_cores():
    cpu = max(os.sched_getaffinity(0))
    code = (
        "import os, threading; t = threading.Thread(target=input); t.start(); print(os.getpid(), flush=True); t.join()"
    )

    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pinning.pin([cpu]),  # noqa: PLW1509 -- the test does what the supervisor does
    ) as child:
        child.stdout.readline()
        masks = pinning.thread_masks(child.pid)
        child.stdin.close()
        child.wait(20)

    assert len(masks) == 2
    assert set(masks.values()) == {frozenset({cpu})}
    assert child.pid in masks


def test_pinning_sets_the_mask():
    before = os.sched_getaffinity(0)
    try:
        pinning.pin([min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("cpus", [[], [100_000], [-1]])
def test_cpus_that_do_not_exist_are_refused(cpus):
    before = os.sched_getaffinity(0)

    with pytest.raises(PlacementError, match="cannot pin to CPUs"):
        pinning.pin(cpus)

    assert os.sched_getaffinity(0) == before


def test_a_mask_that_the_kernel_grants_only_in_part_is_refused():
    before = os.sched_getaffinity(0)
    absent = os.sysconf("SC_NPROCESSORS_CONF") + 8
    try:
        with pytest.raises(PlacementError, match=f"{absent} gave {min(before)}: the others are offline"):
            pinning.pin([min(before), absent])
    finally:
        os.sched_setaffinity(0, before)


def test_own_threads_are_listed():
    masks = pinning.thread_masks(os.getpid())

    assert masks[threading.get_native_id()] == os.sched_getaffinity(0)


def test_a_recorded_process(tmp_path):
    for tid, content in (("41", "Name:\tx\nCpus_allowed_list:\t0-1,4\n"), ("42", "Cpus_allowed_list:\t4\n")):
        (tmp_path / "proc/41/task" / tid).mkdir(parents=True)
        (tmp_path / "proc/41/task" / tid / "status").write_text(content)

    assert pinning.thread_masks(41, tmp_path) == {41: {0, 1, 4}, 42: {4}}


def test_a_process_that_is_gone_is_refused(tmp_path):
    with pytest.raises(PlacementError, match="no process 41"):
        pinning.thread_masks(41, tmp_path)


@pytest.mark.parametrize("name", ["KMP_AFFINITY", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY"])
def test_a_variable_that_breaks_pinning_is_named_with_the_reason(name):
    found = pinning.forbidden_variables({name: "0", "OMP_NUM_THREADS": "1"})

    assert len(found) == 1
    assert found[0].startswith(f"{name} is set: ")
    assert "bind" in found[0]


@pytest.mark.parametrize("environ", [{}, {"OMP_NUM_THREADS": "1", "PATH": "/bin"}, {"KMP_AFFINITY": ""}])
def test_harmless_environments_pass(environ):
    assert pinning.forbidden_variables(environ) == []
    pinning.refuse_forbidden_variables(environ)


def test_all_variables_are_refused_together_with_the_remedy():
    with pytest.raises(SetupError, match=r"unset KMP_AFFINITY OMP_PROC_BIND$"):
        pinning.refuse_forbidden_variables({"OMP_PROC_BIND": "true", "KMP_AFFINITY": "compact"})
