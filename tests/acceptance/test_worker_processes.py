"""Worker processes: where their threads run, and what happens when one is killed or terminated."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from support import commands
from support.installation import Installation
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.cpu.pinning import thread_masks


def submit_pictures(installation: Installation, count: int, side: int = 1200, chunk: int = 16) -> str:
    """Submit `count` copies of one picture; return the job's id."""
    picture = Image.effect_noise((side, side), 40).convert("RGB")
    path = Path("picture.jpg")
    picture.save(path)
    with ObjectStore(installation.settings.s3) as store:
        for number in range(count):
            store.upload(path, S3Url(installation.bucket, f"in/{number:04d}.jpg"))
    settings = installation.environment | {"MASKMILL_JOBS__CHUNK_IMAGES": str(chunk)}
    done = commands.run(
        "producer",
        "submit",
        f"s3://{installation.bucket}/in/",
        f"s3://{installation.bucket}/out/",
        "--json",
        settings=settings,
    )
    assert done.code == 0, done.err
    return done.lines[0]["job"]


def wait_for_progress(ledger: Ledger, job: str, more_than: int = 0) -> int:
    return commands.wait_for(
        lambda: (done := ledger.view(job).done) > more_than and done, f"job {job} to make progress"
    )


def wait_for_end(ledger: Ledger, job: str, seconds: float = 60.0) -> None:
    commands.wait_for(lambda: ledger.view(job).status is JobStatus.FINISHED, f"job {job} to finish", seconds)


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_threads_in_flight_stay_inside_disjoint_core_sets(installation, ledger, worker_log):
    settings = installation.environment | {"MASKMILL_PLAN__PROCESSES": "2"}
    cpus = sorted(os.sched_getaffinity(0))
    half = len(cpus) // 2
    with commands.workers(settings, worker_log) as supervisor:
        job = submit_pictures(installation, 60, chunk=4)
        wait_for_progress(ledger, job)
        seen: dict[int, set[int]] = {}
        ran: dict[int, set[int]] = {}
        while ledger.view(job).status is not JobStatus.FINISHED:
            for process in commands.model_processes(supervisor.pid):
                for thread, mask in thread_masks(process.pid).items():
                    seen.setdefault(process.pid, set()).update(mask)
                    with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                        stat = Path(f"/proc/{process.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
                        ran.setdefault(process.pid, set()).add(int(stat[36]))  # proc(5): the CPU it last ran on

    assert len(seen) == 2
    first, second = seen.values()
    assert not first & second and first | second <= set(cpus)
    assert len(first) >= half // 2 and len(second) >= 1
    assert all(ran[pid] <= seen[pid] for pid in seen)


def test_a_killed_model_process_is_replaced_and_its_chunk_completes(installation, ledger, worker_log):
    with commands.workers(installation.environment, worker_log) as supervisor:
        job = submit_pictures(installation, 64)
        wait_for_progress(ledger, job)
        victim = commands.model_processes(supervisor.pid)[0]

        victim.kill()
        done_before = ledger.view(job).done
        wait_for_end(ledger, job)
        successors = [process.pid for process in commands.model_processes(supervisor.pid)]

    view = ledger.view(job)
    assert (view.ok, view.total) == (64, 64) and done_before < 64
    assert successors and victim.pid not in successors
    assert Backlog(ledger.connection).queued() == 0


def test_a_killed_consumer_is_restarted(installation, ledger, worker_log):
    with commands.workers(installation.environment, worker_log) as supervisor:
        commands.wait_for(lambda: commands.model_processes(supervisor.pid), "a model process")
        consumer = psutil.Process(supervisor.pid).children()[0]
        model = consumer.children()[0]

        consumer.kill()

        commands.wait_for(lambda: not model.is_running() or model.status() == psutil.STATUS_ZOMBIE, "its child to end")
        commands.wait_for(
            lambda: [p for p in commands.model_processes(supervisor.pid) if p.pid != model.pid], "a new model process"
        )
        job = submit_pictures(installation, 4)
        wait_for_end(ledger, job)


def test_sigterm_returns_the_rest_of_a_chunk(installation, ledger, worker_log):
    with commands.workers(installation.environment, worker_log) as supervisor:
        job = submit_pictures(installation, 64, chunk=64)
        wait_for_progress(ledger, job)
        began = time.monotonic()

        supervisor.send_signal(signal.SIGTERM)
        code = supervisor.wait(30)

        stopped_at = ledger.view(job).done
    assert code == 0
    assert Fleet(ledger.connection).live() == [], "a worker that stops must deregister"
    assert 0 < stopped_at < 64, "the signal must arrive while the chunk runs"
    waited = time.monotonic() - began
    assert Backlog(ledger.connection).queued() == 1, f"{waited:.1f} s after SIGTERM the chunk must be back in the queue"

    with commands.workers(installation.environment, worker_log):
        wait_for_end(ledger, job)
    assert ledger.view(job).ok == 64


def test_workers_end_when_their_supervisor_is_killed(installation, worker_log):
    with commands.workers(installation.environment, worker_log) as supervisor:
        commands.wait_for(lambda: commands.model_processes(supervisor.pid), "a model process")
        family = commands.descendants(supervisor.pid)

        supervisor.kill()

        commands.wait_for(
            lambda: not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE],
            "all processes to end",
        )
        supervisor.wait()


def test_a_node_without_a_model_ends_with_the_reason(installation, worker_log):
    settings = installation.environment | {
        "MASKMILL_MODEL__SOURCE": str(worker_log.parent / "no-bundle-here"),
        "MASKMILL_WORKER__RESTART_LIMIT": "2",
    }
    with commands.workers(settings, worker_log) as supervisor:
        code = supervisor.wait(60)

    log = worker_log.read_text()
    assert code == 1
    assert "no-bundle-here" in log and "MASKMILL_MODEL__SOURCE" in log
    assert "worker-0 ended 2 times" in log and "Traceback" not in log


@pytest.mark.parametrize("variable", ["KMP_AFFINITY", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY"])
def test_variables_that_break_pinning_are_refused(installation, variable):
    done = commands.run("worker", "start", settings=installation.environment | {variable: "1"})

    assert done.code == 1
    assert variable in done.err and "Traceback" not in done.err
