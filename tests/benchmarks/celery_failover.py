"""Count what plain Celery loses and does twice while workers are killed and Redis fails over.

    make celery-failover MINUTES=3 SEED=1

A primary, a replica and three Sentinels run, and workers of plain Celery with late acknowledgement. A producer sends
tasks at a steady rate and repeats each until Celery takes it. By a plan that the seed decides, workers are killed
(SIGKILL, started again at once) and the primary is killed (SIGKILL; it comes back as a replica). Then nothing is done
until the broker is empty, or until messages of dead workers should have come back long ago.

    lost        Celery had taken the task, it was never done, and its message is in no queue and held by no worker
    held        never done; its message still waits among those of dead workers
    twice       done more than once

CELERY.json has the plan and all figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import celery
import kombu
import redis

from support.sentinels import SentinelSet, sentinel_set
from worker.bench.plain_celery import QUEUE

PREFIX = "peer:"
WORKERS = 3
QUIET_SECONDS = 5.0
SWEEP_SECONDS = 100.0
"""Longest time, by Celery's defaults, until an expired message is looked for."""

LOCK_SECONDS = 300.0
"""Time for which no process looks, by Celery's defaults, if the process that looks for them is killed meanwhile."""


@dataclass(frozen=True)
class Event:
    """One fault of the plan."""

    at: float
    """Seconds from the start."""

    what: str
    """`worker` or `primary`."""

    which: int


def plan(seed: int, seconds: float, worker_every: float, primary_every: float) -> list[Event]:
    """Return the faults of a run in order; the times between two of a kind are drawn from the seed."""
    events = []
    for what, every in (("worker", worker_every), ("primary", primary_every)):
        chance, at = random.Random(f"{seed} {what}"), 0.0
        while (at := at + chance.uniform(0.5, 1.5) * every) < seconds:
            events.append(Event(round(at, 2), what, chance.randrange(WORKERS)))
    return sorted(events, key=lambda event: event.at)


@dataclass
class Workers:
    """The workers of the run, which all end with it."""

    environment: Mapping[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes] | None] = field(default_factory=lambda: [None] * WORKERS)

    def start(self, number: int) -> None:
        """Start one worker."""
        quiet = ("--without-gossip", "--without-mingle", "--loglevel=WARNING")
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker", "--concurrency=1", *quiet]
        with (self.folder / f"worker-{number}.log").open("ab") as log:
            self.running[number] = subprocess.Popen(
                [*command, f"--hostname=worker-{number}@peer"], env=dict(self.environment), stdout=log, stderr=log
            )

    def kill(self, number: int) -> None:
        """Kill one worker; its child ends with it."""
        process = self.running[number]
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def revive(self) -> int:
        """Start the workers that ended by themselves; return how many."""
        ended = [number for number, process in enumerate(self.running) if process is None or process.poll() is not None]
        for number in ended:
            self.start(number)
        return len(ended)


@dataclass
class Producer:
    """Sends tasks at a steady rate from a thread."""

    app: celery.Celery
    rate: float
    sent: list[int] = field(default_factory=list)
    """Numbers of the tasks that Celery took."""

    repeated: set[int] = field(default_factory=set)
    """Those that it took after an error, so that a message may be in the queue twice."""

    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until told to stop."""
        began, number = time.monotonic(), 0
        while not self.stop.is_set():
            while not self.stop.is_set():
                try:
                    self.app.send_task("peer.work", args=(number,), task_id=f"task-{number}", queue=QUEUE)
                except Exception:  # noqa: BLE001 -- Celery raises errors of several libraries while Redis fails over
                    self.repeated.add(number)
                    self.stop.wait(0.2)
                    continue
                self.sent.append(number)
                break
            number += 1
            self.stop.wait(max(0.0, began + number / self.rate - time.monotonic()))


def counts(file: Path) -> tuple[Counter[int], Counter[int]]:
    """Return how often each task was started and done."""
    started, done = Counter[int](), Counter[int]()
    for line in file.read_text().splitlines():
        what, number, *_ = line.split()
        (done if what == "done" else started)[int(number)] += 1
    return started, done


def in_broker(servers: SentinelSet) -> tuple[set[int], set[int]]:
    """Return the tasks whose message is in a queue, and those whose message is held by a worker, dead or alive."""
    with servers.primary().client as client:
        waiting = [json.loads(text) for text in client.lrange(f"{PREFIX}p:{QUEUE}", 0, -1)]
        held = [json.loads(text)[0] for text in client.hvals(f"{PREFIX}p:unacked")]
    return _numbers(waiting), _numbers(held)


def _numbers(messages: list[dict[str, Any]]) -> set[int]:
    return {int(message["headers"]["id"].removeprefix("task-")) for message in messages}


def settle(servers: SentinelSet, workers: Workers, tasks: Path, seconds: float) -> float:
    """Wait until no message is left and no task was done for a while; return the seconds that it took."""
    began = quiet_since = time.monotonic()
    known = -1
    while time.monotonic() - began < seconds:
        workers.revive()
        with contextlib.suppress(redis.RedisError):
            waiting, held = in_broker(servers)
            done = sum(counts(tasks)[1].values())
            if waiting or held or done != known:
                known, quiet_since = done, time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_SECONDS:
                break
        time.sleep(0.5)
    return time.monotonic() - began


def run_plan(events: list[Event], seconds: float, servers: SentinelSet, workers: Workers) -> Counter[str]:
    """Let the faults happen; return how many of each did."""
    happened, began = Counter[str](), time.monotonic()
    for event in events:
        time.sleep(max(0.0, began + event.at - time.monotonic()))
        happened["worker exits"] += workers.revive()
        if event.what == "worker":
            workers.kill(event.which)
            workers.start(event.which)
        else:
            servers.fail_over("kill")
            servers.heal()
        happened[event.what] += 1
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return happened


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the plan and return all figures."""
    tasks = folder / "tasks"
    tasks.touch()
    seconds = options.minutes * 60
    events = plan(options.seed, seconds, options.worker_every, options.primary_every)
    with sentinel_set(folder) as servers:
        more = {
            **servers.environment(),
            "MASKMILL_REDIS__PREFIX": PREFIX,
            "VISIBILITY_SECONDS": str(options.visibility_timeout),
            "TASKS_FILE": str(tasks),
        }
        workers = Workers({**os.environ, **more, "PYTHONPATH": str(Path(__file__).parents[1])}, folder)
        with mock.patch.dict(os.environ, more), _ending(workers):
            from benchmarks.celery_app import app  # it reads the environment

            workers.revive()
            producer = Producer(app, options.rate)
            thread = threading.Thread(target=producer.run)
            thread.start()
            try:
                happened = run_plan(events, seconds, servers, workers)
            finally:
                producer.stop.set()
                thread.join()
            settled = settle(servers, workers, tasks, options.visibility_timeout + SWEEP_SECONDS + LOCK_SECONDS)
            waiting, held = in_broker(servers)
    started, done = counts(tasks)
    missing = set(producer.sent) - set(done)
    twice = {number for number, times in done.items() if times > 1}
    return {
        "versions": {"celery": celery.__version__, "kombu": kombu.__version__, "redis-py": redis.__version__},
        "options": vars(options) | {"output": str(options.output)},
        "plan": [vars(event) for event in events],
        "worker_kills": happened["worker"],
        "primary_kills": happened["primary"],
        "worker_exits_by_themselves": happened["worker exits"],
        "sent": len(producer.sent),
        "sent_after_an_error": len(producer.repeated & set(producer.sent)),
        "done": len(set(done) & set(producer.sent)),
        "lost": sorted(missing - waiting - held),
        "lost_after_their_start": sorted((missing - waiting - held) & set(started)),
        "held": sorted(missing & held),
        "waiting": sorted(missing & waiting),
        "twice": sorted(twice),
        "twice_after_an_error_of_the_producer": sorted(twice & producer.repeated),
        "seconds_to_settle": round(settled, 1),
    }


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return the figures in words."""
    lost, held, twice = (len(found[name]) for name in ("lost", "held", "twice"))
    return [
        f"{found['worker_kills']} kills of workers and {found['primary_kills']} of the primary, {found['sent']} tasks",
        f"lost: {lost}, of them {len(found['lost_after_their_start'])} after their start",
        f"held by dead workers: {held}, still in the queue: {len(found['waiting'])}",
        f"done twice: {twice}, of them {len(found['twice_after_an_error_of_the_producer'])} sent again after an error",
        f"{found['seconds_to_settle']} s from the end of the plan until nothing happened any more",
    ]


@contextlib.contextmanager
def _ending(workers: Workers) -> Iterator[None]:
    try:
        yield
    finally:
        for number in range(WORKERS):
            workers.kill(number)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="length of the plan")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20.0, help="tasks per second")
    parser.add_argument("--worker-every", type=float, default=5.0, help="mean seconds between two kills of a worker")
    parser.add_argument("--primary-every", type=float, default=30.0, help="the same, of the primary")
    parser.add_argument("--visibility-timeout", type=int, default=60, help="seconds; Celery's default is 3600")
    parser.add_argument("--output", type=Path, default=Path("celery-failover"), help="folder for CELERY.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options, Path(folder))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "CELERY.json").write_text(json.dumps(found, indent=1) + "\n")
    for line in summary(found):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"all figures: {options.output / 'CELERY.json'}\n")


if __name__ == "__main__":
    main()
