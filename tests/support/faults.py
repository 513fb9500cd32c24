"""Faults for real workers, and the account that is drawn up after them.

A test says in `Faults` what goes wrong inside the processes it starts (`injected/sitecustomize.py` does it), signals
whom it likes through `Node`, and has the job settled by `settle`, which is what every fault test asserts.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from producer.submit import Submitter
from support import commands
from support.stack import Installation
from worker.contract import redis_keys
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy, OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

LEASE, SILENCE, RECONCILE, LEADER = 4, 3.0, 0.5, 2.0
SWEEP, MUTEX = 1.0, 2.0
"""As `worker.contract.queue.celery_app` derives them of the lease."""

FAST = {
    "MASKMILL_ENGINE__LEASE_SECONDS": str(LEASE),
    "MASKMILL_ENGINE__SILENCE_SECONDS": str(SILENCE),
    "MASKMILL_ENGINE__RECONCILE_SECONDS": str(RECONCILE),
    "MASKMILL_ENGINE__LEADER_SECONDS": str(LEADER),
    "MASKMILL_ENGINE__FEED_SECONDS": "0.1",
    "MASKMILL_PLAN__PROCESSES": "1",
    "MASKMILL_PLAN__STREAMS": "1",
    "MASKMILL_WORKER__IMAGES_AHEAD": "2",
    "MASKMILL_WORKER__RESTART_LIMIT": "1000",
    "MASKMILL_WORKER__STAGGER_SECONDS": "0",
}
"""The engine's clocks, about thirty times as fast as by default."""

IN_FLIGHT = 4
"""Images in work in one process: a stream, one that is being written, and two ahead (`worker.runner.process`)."""

SLACK = 40.0
"""Seconds on top of a bound that includes starting a process and loading a model, on a machine with other work."""

LATE = 5.0
"""Seconds on top of a bound that includes nothing of the kind."""

RECONCILED_WITHIN = SILENCE + 2 * RECONCILE
LEASE_BACK_WITHIN = LEASE + SWEEP + MUTEX

_INJECTED = Path(__file__).parent / "injected"


@dataclass(frozen=True)
class Faults:
    """What is wrong in the processes of a test. Give `environment()` to whatever it starts."""

    folder: Path
    """Of the test's own; tokens and the list of executions are in it."""

    image_seconds: float = 0.0
    """Slept over every image: work that lasts and costs the machine nothing."""

    load_seconds: float = 0.0
    """Slept while a model is loaded, as often as the token `slow-load` says."""

    gap_seconds: float = 0.0
    """Between Redis handing out a message and kombu writing down that it did."""

    back_off_seconds: float = 0.2
    """The longest pause of the supervisor before it starts a process again."""

    off: Sequence[str] = ()
    """Safeguards that are missing: reconciler, renewal, watchdog, careful, verdict."""

    schema: int = 0
    """Not a fault: the process is of a later release, whose messages have this schema; it reads older ones as well."""

    celery: Mapping[str, object] = field(default_factory=dict)
    """Celery settings other than the product's; what is a table there is merged into it."""

    def environment(self) -> dict[str, str]:
        """Variables that put the faults into a process and into those it starts."""
        self._tokens.mkdir(parents=True, exist_ok=True)
        asked = asdict(self) | {"folder": None, "tokens": str(self._tokens), "executions": str(self._executions)}
        return {"PYTHONPATH": str(_INJECTED), "FAULTS": json.dumps(asked)}

    def arm(self, token: str, times: int = 1) -> None:
        """Let a fault happen so many times from now on.

        `lose`: a worker dies holding a message that is nowhere else. `half-batch`: the leader dies when it has
        published half of what it took.
        """
        self._tokens.mkdir(parents=True, exist_ok=True)
        for _ in range(times):
            (self._tokens / f"{token}-{time.monotonic_ns()}").touch()

    def armed(self, token: str) -> int:
        """How many are still to happen."""
        return len(list(self._tokens.glob(f"{token}-*")))

    def executions(self) -> Counter[str]:
        """Key -> how often work on that image began, whoever did it and whatever came of it."""
        lines = self._executions.read_text().splitlines() if self._executions.exists() else []
        return Counter(line.partition("\t")[0] for line in lines)

    @property
    def _tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def _executions(self) -> Path:
        return self.folder / "executions"


@dataclass(frozen=True)
class Node:
    """The processes below one `worker start`."""

    pid: int

    def parents(self) -> list[psutil.Process]:
        """Celery's parent processes, one per core set."""
        return self._direct("worker.app")

    def children(self) -> list[psutil.Process]:
        """The processes that run chunks."""
        return [child for parent in self.parents() for child in below(parent) if not _gone(child)]

    def stewards(self) -> list[psutil.Process]:
        """The steward, if it runs."""
        return self._direct("worker.steward.process")

    def _direct(self, program: str) -> list[psutil.Process]:
        found = []
        for process in below(psutil.Process(self.pid)):
            try:
                if program in process.cmdline() and not _gone(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def below(process: psutil.Process) -> list[psutil.Process]:
    """The processes that one has started; none of one that is gone."""
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def _gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def stop_family(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a process and all below it, children first: SIGSTOP for a node that hangs, SIGCONT for its return."""
    for one in [*process.children(recursive=True), process]:
        one.send_signal(number)


@dataclass(frozen=True)
class Scene:
    """Where a fault is played: a installation, what is wrong there, and the log of its workers."""

    installation: Installation
    faults: Faults
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Beside those of the installation."""

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of the scene."""
        return self.installation.environment | dict(self.settings) | self.faults.environment()

    def but(self, *, settings: Mapping[str, str] | None = None, **faults: Any) -> Scene:
        """The same with these settings and faults."""
        return replace(self, settings={**self.settings, **(settings or {})}, faults=replace(self.faults, **faults))

    @contextmanager
    def node(self) -> Iterator[Node]:
        """`worker start`, with every worker process up."""
        with commands.workers(self.environment, self.log) as supervisor:
            node = Node(supervisor.pid)
            processes = int(self.environment["MASKMILL_PLAN__PROCESSES"])
            with Ledger(self.installation.settings.redis) as ledger:
                fleet = Fleet(ledger.link)
                commands.wait_for(lambda: len(fleet.facts()) == processes and node.children(), "workers to be up")
            yield node

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The jobs of the scene."""
        with Ledger(self.installation.settings.redis) as ledger:
            yield ledger

    def settle(self, job: str, *, seconds: float = 90.0) -> Account:
        """See `settle`."""
        return settle(self.installation, job, self.faults, seconds=seconds)


def side_by_side(*plays: Callable[[], object]) -> None:
    """Play several scenes at the same time, as most of each is waiting; the first failure is raised."""
    with ThreadPoolExecutor(len(plays)) as threads:
        for played in [threads.submit(play) for play in plays]:
            played.result()


# -- jobs -------------------------------------------------------------------------------------------------------------


def picture(side: int = 64) -> bytes:
    """A small photograph as PNG."""
    data = BytesIO()
    Image.effect_noise((side, side), 40).convert("RGB").save(data, "PNG")
    return data.getvalue()


def submit(
    installation: Installation,
    count: int,
    *,
    chunk: int,
    special: Mapping[int, tuple[str, bytes | None]] | None = None,
    policy: JobPolicy | None = None,
    folder: str = "in",
) -> str:
    """Submit `count` small pictures, from this process; the job's id.

    Args:
        installation: whose bucket and Redis.
        count: of images.
        chunk: images in a chunk.
        special: position -> a word for its key (`poison-segfault`) and its bytes, if not the usual ones.
        policy: how to run it.
        folder: of the inputs; outputs go under `FOLDER-out/`.
    """
    usual = picture()
    with (
        ObjectStore(installation.settings.s3) as store,
        Ledger(installation.settings.redis) as ledger,
        make_celery(installation.settings) as celery,
    ):
        for index in range(count):
            word, data = (special or {}).get(index, ("image", None))
            key = f"{folder}/{index:05d}-{word}.png"
            store.put(S3Url(installation.bucket, key), data or usual, content_type="image/png")
        submitter = Submitter(store, ledger, celery, chunk)
        source, dest = (f"s3://{installation.bucket}/{folder}{end}/" for end in ("", "-out"))
        return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job


@dataclass(frozen=True)
class Account:
    """What became of a job, after everything that must always hold has been asserted."""

    view: JobView
    executions: Counter[str]

    @property
    def repeated(self) -> int:
        """Executions beyond the first of each image."""
        return self.executions.total() - len(self.executions)


def progress(ledger: Ledger, job: str, at_least: int, seconds: float = 60.0) -> JobView:
    """Wait until so many images have an outcome."""
    commands.wait_for(lambda: ledger.view(job).done >= at_least, f"{at_least} images of job {job}", seconds)
    return ledger.view(job)


def settle(installation: Installation, job: str, faults: Faults | None = None, *, seconds: float = 60.0) -> Account:
    """Wait for the end of a job and draw up its account.

    Asserts what must hold after every fault: each image has an outcome, the counters equal the states, every image
    that is ok has its output, and neither the broker nor the ledger has anything left of the job.
    """
    with Ledger(installation.settings.redis) as ledger, ObjectStore(installation.settings.s3) as store:
        commands.wait_for(lambda: ledger.view(job).status in ENDED, f"job {job} to end", seconds)
        view = ledger.view(job)
        assert view.status is JobStatus.FINISHED, view
        states = Counter(ledger.states(job, view.total or 0))
        assert None not in states, f"{states[None]} images were lost"
        assert states == +Counter({kind: getattr(view, kind.value) for kind in OutcomeKind}), view
        folder = view.options.dest
        outputs = [item.key for item in store.list(folder) if not item.key.startswith(redis_keys.JOB_PREFIX)]
        assert len(outputs) == view.ok + view.skipped
        # The last acknowledgement follows the last outcome.
        commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty", RECONCILED_WITHIN + SLACK)
        assert not residue(ledger, job)
    return Account(view, faults.executions() if faults else Counter())


def broker_empty(ledger: Ledger) -> bool:
    """No message in a queue or with a worker."""
    client, prefix = ledger.link.client, ledger.link.prefix
    held = client.hlen(redis_keys.unacked(prefix)) + client.zcard(f"{prefix}unacked_index")
    return held == 0 and Backlog(ledger.link).queued() == 0


def residue(ledger: Ledger, job: str) -> dict[str, int]:
    """Keys of an ended job that should be empty and are not, with their sizes."""
    keys, client = redis_keys.job_keys(ledger.link.prefix, job), ledger.link.client
    sizes = {
        "outstanding": client.zcard(keys.outstanding),
        "running": client.hlen(keys.running),
        "attempts": client.hlen(keys.attempts),
        "suspects": client.hlen(keys.suspects),
        "returned": client.scard(keys.returned),
        "log": client.xlen(keys.log),
    }
    return {name: size for name, size in sizes.items() if size}


def missing(installation: Installation, job: str) -> list[int]:
    """Chunks that were published, are not finished, and for which no message stands anywhere."""
    with Ledger(installation.settings.redis) as ledger:
        backlog, epoch = Backlog(ledger.link), ledger.view(job).epoch
        unfinished, present = backlog.silent(job, 0), backlog.in_broker()
        return [chunk for chunk in unfinished if redis_keys.task_id(job, epoch, chunk) not in present]


def absences(installation: Installation, job: str, seconds: float = 90.0) -> dict[int, float]:
    """Watch a job to its end: chunk -> how long at most it was missing at a time, in seconds."""
    since: dict[int, float] = {}
    longest: dict[int, float] = {}
    deadline = time.monotonic() + seconds
    with Ledger(installation.settings.redis) as ledger:
        while not ledger.view(job).ended and time.monotonic() < deadline:
            gone = missing(installation, job)
            since = {chunk: since.get(chunk, time.monotonic()) for chunk in gone}
            for chunk, first in since.items():
                longest[chunk] = max(longest.get(chunk, 0.0), time.monotonic() - first)
            time.sleep(0.05)
    return longest


def stuck(installation: Installation, job: str, seconds: float) -> JobView:
    """What a control run shows: for so long nothing happens, although the job has not ended."""
    with Ledger(installation.settings.redis) as ledger:
        before, since = ledger.view(job), time.monotonic()
        while time.monotonic() - since < seconds:
            now = ledger.view(job)
            assert not now.ended, "the control run lost nothing: the test proves nothing"
            if now.done != before.done:
                before, since = now, time.monotonic()
            time.sleep(0.1)
        return before


@contextmanager
def memory_limit(node: Node, mib: int) -> Iterator[None]:
    """Kill whatever child of a node uses more, as a memory limit of the kernel does where one can be set.

    Control groups are not ours to change in a container; the signal and the moment are the same.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for child in node.children():
                with suppress(psutil.NoSuchProcess):
                    if child.memory_info().rss > mib * 2**20:
                        child.kill()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
