"""Slots and the supervisor, with small programs in place of Celery workers."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.commands import wait_for
from support.log_lines import log_text
from worker.contract.errors import PlacementError, SetupError
from worker.contract.settings import Settings
from worker.cpu.placement import CoreSet, Plan
from worker.node import supervisor
from worker.node.supervisor import Slot, Supervisor

ROOT = Path(__file__).parents[3]
CPU = min(os.sched_getaffinity(0))
CORES = CoreSet(index=3, cpus=(CPU,), package=0, node=0, l3=0, streams=2, threads=4)
OTHER = replace(CORES, index=4)
SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
FAIL = (sys.executable, "-c", "raise SystemExit(7)")


@pytest.fixture
def slot_of() -> Iterator[Callable[..., Slot]]:
    """A factory of slots. Processes that still run after the test are killed."""
    made: list[Slot] = []

    def make(argv, cores: CoreSet = CORES, env: dict[str, str] | None = None) -> Slot:
        made.append(Slot(f"worker-{cores.index}", cores.cpus, argv, {**os.environ, **(env or {})}))
        return made[-1]

    yield make
    for slot in made:
        slot.signal(signal.SIGKILL)
        ended(slot)


def ended(slot: Slot) -> None:
    wait_for(lambda: not slot.running, "the process to end", 10)


def test_a_process_is_pinned_before_it_runs_anything(slot_of, tmp_path):
    code = (
        "import json, os; json.dump({'cpus': sorted(os.sched_getaffinity(0)), 'session': os.getsid(0), "
        "'pid': os.getpid(), 'mark': os.environ['MARK']}, open('facts.json', 'w'))"
    )
    slot = slot_of((sys.executable, "-c", code), env={"MARK": "here"})

    slot.start()
    ended(slot)

    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["cpus"] == [CPU]
    assert facts["session"] == facts["pid"] == slot.pid  # Ctrl-C at the terminal does not reach it
    assert facts["mark"] == "here"
    assert slot.name == "worker-3"
    assert os.sched_getaffinity(0) >= {CPU}  # that of this process is unchanged


def test_a_running_process_is_left_alone(slot_of):
    slot = slot_of(SLEEP)
    assert slot.due and slot.pid is None

    slot.start()
    slot.reap(5)

    assert slot.running and slot.pid and not slot.due


def test_a_signal_reaches_the_process_and_needs_none(slot_of):
    slot = slot_of(SLEEP)
    slot.signal(signal.SIGTERM)
    slot.start()

    slot.signal(signal.SIGTERM)

    ended(slot)
    slot.signal(signal.SIGTERM)


def test_each_restart_waits_longer_up_to_a_bound(slot_of, monkeypatch, caplog):
    now = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    slot = slot_of(FAIL)
    pauses = []
    for _ in range(7):
        slot.start()
        slot._process.wait(10)
        slot.reap(100)
        assert not slot.due
        pauses.append(slot._start_at - now[0])
        now[0] = slot._start_at
        assert slot.due

    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert "event=process_exited name=worker-3 status=7 restart_seconds=1" in log_text(caplog)


def test_a_process_that_keeps_ending_is_given_up(slot_of):
    slot = slot_of(FAIL)
    for _ in range(2):
        slot.start()
        slot._process.wait(10)
        slot.reap(3)
    slot.start()
    slot._process.wait(10)

    with pytest.raises(SetupError, match=r"worker-3 ended 3 times.*exit status 7.*worker check"):
        slot.reap(3)


def ended_often(slot: Slot, times: int, limit: int = 3) -> None:
    """Let a process end several times; `reap` raises if the node gives it up."""
    for _ in range(times):
        slot.start()
        slot._process.wait(10)
        slot.reap(limit)


CONFIG_ERROR = (sys.executable, "-c", f"raise SystemExit({os.EX_CONFIG})")


def test_a_steward_that_keeps_ending_is_started_again_for_ever():
    slot = Slot("steward", CORES.cpus, FAIL, os.environ, essential=False)

    ended_often(slot, 8)

    assert not slot.running and slot.starts_in > 0


def test_a_steward_that_never_came_up_because_of_a_setting_stops_the_node():
    with pytest.raises(SetupError, match="steward ended 3 times"):
        ended_often(Slot("steward", CORES.cpus, CONFIG_ERROR, os.environ, essential=False), 3)


def test_a_steward_that_came_up_once_stops_no_node(monkeypatch):
    monkeypatch.setattr(supervisor, "_UP_SECONDS", 0)
    ended_often(Slot("steward", CORES.cpus, CONFIG_ERROR, os.environ, essential=False), 8)


def test_workers_go_on_beside_a_steward_that_keeps_ending():
    subject = replaced(supervised(dict(os.environ), restart_limit=1), SLEEP)
    worker, steward = subject.slots
    steward._argv = list(FAIL)

    run_until(subject, lambda: len(steward._starts) > 1, signal.SIGTERM)

    assert worker._process.returncode == -signal.SIGTERM and len(worker._starts) == 1


def test_a_process_that_cannot_be_started_for_lack_of_resources_is_tried_again(slot_of, monkeypatch, caplog):
    slot = slot_of(SLEEP)

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(supervisor.subprocess, "Popen", refuse)
    slot.start()

    assert slot.pid is None and slot.starts_in > 0
    assert "event=process_not_started name=worker-3" in log_text(caplog)


def test_restarts_outside_the_window_do_not_count(slot_of, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    slot = slot_of(FAIL)
    for _ in range(5):
        slot.start()
        slot._process.wait(10)
        slot.reap(2)
        assert slot._start_at - now[0] == 1
        now[0] += 601


def test_unavailable_cores_are_named(slot_of):
    with pytest.raises(PlacementError, match="999999"):
        slot_of(SLEEP, replace(CORES, cpus=(999_999,))).start()


def plan_of(*sets: CoreSet) -> Plan:
    return Plan(core_sets=sets, memory_needed_mib=1, memory_usable_mib=2, reasons=(), warnings=())


def supervised(environ: dict[str, str], sets: tuple[CoreSet, ...] = (CORES,), **worker: float) -> Supervisor:
    return Supervisor(Settings(worker={"stagger_seconds": 0, **worker}), plan_of(*sets), environ=environ)


def test_a_process_gets_its_share_in_its_environment():
    slot, steward = supervised({"PATH": "/bin", "OMP_NUM_THREADS": "64", "MASKMILL_REDIS__PREFIX": "x:"}).slots

    assert slot._env == {
        "PATH": "/bin",
        "MASKMILL_REDIS__PREFIX": "x:",
        "MASKMILL_MODEL__SOURCE": "builtin:starter",
        "MASKMILL_LIMITS__PICTURE_MEMORY_MIB": str(plan_of(CORES).picture_memory_mib),
        "MASKMILL_WORKER__PROCESS_NAME": "worker-3",
        "MASKMILL_PLAN__STREAMS": "2",
        "MASKMILL_PLAN__THREADS": "4",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    assert slot._argv[1:6] == ["-m", "celery", "--quiet", "-A", "worker.app"]
    assert steward.name == "steward" and steward._argv[1:] == ["-m", "worker.steward.process"]


def test_the_memory_for_pictures_may_be_set_by_hand():
    settings = Settings(limits={"picture_memory_mib": 99})
    slot, _ = Supervisor(settings, plan_of(CORES), environ={"MASKMILL_LIMITS__PICTURE_MEMORY_MIB": "99"}).slots

    assert slot._env["MASKMILL_LIMITS__PICTURE_MEMORY_MIB"] == "99"


def test_glibc_tunables_of_the_user_are_kept():
    slot, _ = supervised({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}).slots

    assert slot._env["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2"


def test_variables_that_break_pinning_are_refused():
    with pytest.raises(PlacementError, match="unset KMP_AFFINITY"):
        supervised({"KMP_AFFINITY": "compact"})


def replaced(subject: Supervisor, *argvs: tuple[str, ...]) -> Supervisor:
    *workers, steward = subject.slots
    steward._argv = list(SLEEP)
    for slot, argv in zip(workers, argvs, strict=True):
        slot._argv = list(argv)
    return subject


def run_until(subject: Supervisor, ready: Callable[[], object], *numbers: signal.Signals) -> None:
    """Run the supervisor in the main thread; another thread sends the signals when `ready` is true."""

    def send() -> None:
        wait_for(ready, "the processes to be ready", 20)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        subject.run()
    finally:
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_and_then_the_run(number, caplog):
    subject = replaced(supervised(dict(os.environ), (CORES, OTHER)), SLEEP, SLEEP)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    with caplog.at_level(logging.INFO, "worker.node.supervisor"):
        run_until(subject, lambda: all(slot.running for slot in subject.slots), number)

    assert [slot._process.returncode for slot in subject.slots] == [-signal.SIGTERM] * 3
    assert "event=process_killed" not in log_text(caplog)
    assert "event=node_stopped" in log_text(caplog)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


DEAF = (
    sys.executable,
    "-c",
    "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('deaf').touch(); "
    "time.sleep(60)",
)


def test_a_process_that_outlives_the_grace_period_is_killed(tmp_path, caplog):
    subject = replaced(supervised(dict(os.environ), grace_seconds=0.5), DEAF)

    run_until(subject, (tmp_path / "deaf").exists, signal.SIGTERM)

    assert subject.slots[0]._process.returncode == -signal.SIGKILL
    assert "event=process_killed name=worker-3" in log_text(caplog)


def test_a_second_signal_kills_at_once(tmp_path):
    subject = replaced(supervised(dict(os.environ), grace_seconds=60), DEAF)
    began = time.monotonic()

    run_until(subject, (tmp_path / "deaf").exists, signal.SIGTERM, signal.SIGTERM)

    assert subject.slots[0]._process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 20


def test_a_process_that_ends_is_started_again(tmp_path):
    code = "import pathlib, time\nif pathlib.Path('once').exists(): time.sleep(60)\npathlib.Path('once').touch()"
    subject = replaced(supervised(dict(os.environ)), (sys.executable, "-c", code))
    slot, _ = subject.slots

    run_until(subject, lambda: len(slot._starts) == 2 and slot.running, signal.SIGTERM)

    assert (tmp_path / "once").exists()


def test_giving_up_one_slot_stops_the_others():
    subject = replaced(supervised(dict(os.environ), (CORES, OTHER), restart_limit=1), FAIL, SLEEP)

    with pytest.raises(SetupError, match="worker-3 ended 1 times"):
        subject.run()

    assert not subject.slots[1].running
    assert subject.slots[1]._process.returncode == -signal.SIGTERM


def test_a_signal_while_the_main_thread_holds_a_lock_still_stops():
    """The handler runs between any two instructions of the main thread, even while it waits."""
    code = """
        import os, signal
        from worker.contract.settings import Settings
        from worker.cpu.placement import Plan
        from worker.node.supervisor import Supervisor

        subject = Supervisor(Settings(), Plan((), 1, 2, (), ()), environ={})
        signal.signal(signal.SIGTERM, subject._on_signal)
        held = getattr(subject._stop, "_cond", None)  # Event.wait holds it briefly
        if held is not None:
            held.acquire()
        signal.raise_signal(signal.SIGTERM)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("exists", [True, False])
def test_counts_are_kept_in_memory_where_that_is_possible(monkeypatch, tmp_path, exists):
    monkeypatch.setattr(supervisor, "_SHARED_MEMORY", str(tmp_path / ("" if exists else "absent")))
    subject = Supervisor(Settings(metrics={"port": 9999}), plan_of(CORES), environ={})

    folder = Path(subject.slots[0]._env["PROMETHEUS_MULTIPROC_DIR"])
    subject._metrics_folder.cleanup()

    assert (folder.parent == tmp_path) is exists
