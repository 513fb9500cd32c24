"""Faults for real workers, and the account that is drawn up after them.

A test says in `Faults` what goes wrong inside the processes it starts (`injected/sitecustomize.py` does it), signals
whom it likes through `Node`, and has the job settled by `settle`, which is what every fault test asserts.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path

import psutil
from PIL import Image

from producer.submit import Submitter
from support import commands
from support.stack import Place
from worker.contract import names
from worker.contract.backlog import Backlog
from worker.contract.broker import make_celery
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger import Ledger
from worker.contract.messages import JobPolicy, OutcomeKind
from worker.contract.objects import ObjectStore, S3Url
from worker.contract.outputs import OutputOptions

LEASE, SILENCE, RECONCILE, LEADER = 4, 3.0, 0.5, 2.0
SWEEP, MUTEX = 1.0, 2.0
"""As `worker.contract.broker` derives them of the lease."""

FAST = {
    "MASKMILL_ENGINE__LEASE_SECONDS": str(LEASE),
    "MASKMILL_ENGINE__SILENCE_SECONDS": str(SILENCE),
    "MASKMILL_ENGINE__RECONCILE_SECONDS": str(RECONCILE),
    "MASKMILL_ENGINE__LEADER_SECONDS": str(LEADER),
    "MASKMILL_ENGINE__FEED_SECONDS": "0.1",
    "MASKMILL_PLAN__PROCESSES": "1",
    "MASKMILL_WORKER__RESTART_LIMIT": "1000",
    "MASKMILL_WORKER__STAGGER_SECONDS": "0",
}
"""The engine's clocks, about thirty times as fast as by default."""

SLACK = 20.0
"""Seconds on top of every bound: starting processes and loading models on a machine that has other work."""

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
    """Slept while a model is loaded."""

    gap_seconds: float = 0.0
    """Between Redis handing out a message and kombu writing down that it did."""

    back_off_seconds: float = 0.2
    """The longest pause of the supervisor before it starts a process again."""

    off: Sequence[str] = ()
    """Safeguards that are missing: reconciler, renewal, watchdog, careful."""

    celery: Mapping[str, object] = field(default_factory=dict)
    """Celery settings other than the product's."""

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
        return [child for parent in self.parents() for child in _children(parent) if not _gone(child)]

    def stewards(self) -> list[psutil.Process]:
        """The steward, if it runs."""
        return self._direct("worker.steward")

    def _direct(self, program: str) -> list[psutil.Process]:
        found = []
        for process in _children(psutil.Process(self.pid)):
            try:
                if program in process.cmdline() and not _gone(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def _children(process: psutil.Process) -> list[psutil.Process]:
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


# -- jobs -------------------------------------------------------------------------------------------------------------


def picture(side: int = 64) -> bytes:
    """A small photograph as PNG."""
    data = BytesIO()
    Image.effect_noise((side, side), 40).convert("RGB").save(data, "PNG")
    return data.getvalue()


def submit(
    place: Place,
    count: int,
    *,
    chunk: int,
    special: Mapping[int, tuple[str, bytes | None]] | None = None,
    policy: JobPolicy | None = None,
    folder: str = "in",
) -> str:
    """Submit `count` small pictures, from this process; the job's id.

    Args:
        place: whose bucket and Redis.
        count: of images.
        chunk: images in a chunk.
        special: position -> a word for its key (`poison-segfault`) and its bytes, if not the usual ones.
        policy: how to run it.
        folder: of the inputs; outputs go under `FOLDER-out/`.
    """
    usual = picture()
    with (
        ObjectStore(place.settings.s3) as store,
        Ledger(place.settings.redis) as ledger,
        make_celery(place.settings) as celery,
    ):
        for index in range(count):
            word, data = (special or {}).get(index, ("image", None))
            key = f"{folder}/{index:05d}-{word}.png"
            store.put(S3Url(place.bucket, key), data or usual, content_type="image/png")
        submitter = Submitter(store, ledger, celery, chunk)
        source, dest = (f"s3://{place.bucket}/{folder}{end}/" for end in ("", "-out"))
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


def settle(place: Place, job: str, faults: Faults | None = None, *, seconds: float = 60.0) -> Account:
    """Wait for the end of a job and draw up its account.

    Asserts what must hold after every fault: each image has an outcome, the counters equal the states, every image
    that is ok has its output, and neither the broker nor the ledger has anything left of the job.
    """
    with Ledger(place.settings.redis) as ledger, ObjectStore(place.settings.s3) as store:
        commands.wait_for(lambda: ledger.view(job).status in ENDED, f"job {job} to end", seconds)
        view = ledger.view(job)
        assert view.status is JobStatus.FINISHED, view
        states = Counter(ledger.states(job, view.total or 0))
        assert None not in states, f"{states[None]} images were lost"
        assert states == +Counter({kind: getattr(view, kind.value) for kind in OutcomeKind}), view
        folder = S3Url.parse(view.options.dest)
        outputs = [item.key for item in store.list(folder) if not item.key.startswith(names.JOB_PREFIX)]
        assert len(outputs) == view.ok + view.skipped
        # The last acknowledgement follows the last outcome.
        commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty", RECONCILED_WITHIN + SLACK)
        assert not residue(ledger, job)
    return Account(view, faults.executions() if faults else Counter())


def broker_empty(ledger: Ledger) -> bool:
    """No message in a queue or with a worker."""
    client, prefix = ledger.link.client, ledger.link.prefix
    held = client.hlen(names.unacked(prefix)) + client.zcard(f"{prefix}unacked_index")
    return held == 0 and Backlog(ledger.link).queued() == 0


def residue(ledger: Ledger, job: str) -> dict[str, int]:
    """Keys of an ended job that should be empty and are not, with their sizes."""
    keys, client = names.job_keys(ledger.link.prefix, job), ledger.link.client
    sizes = {
        "outstanding": client.zcard(keys.outstanding),
        "running": client.hlen(keys.running),
        "attempts": client.hlen(keys.attempts),
        "suspects": client.hlen(keys.suspects),
        "returned": client.scard(keys.returned),
        "log": client.xlen(keys.log),
    }
    return {name: size for name, size in sizes.items() if size}


def stuck(place: Place, job: str, seconds: float) -> JobView:
    """What a control run shows: for so long nothing happens, although the job has not ended."""
    with Ledger(place.settings.redis) as ledger:
        before, since = ledger.view(job), time.monotonic()
        while time.monotonic() - since < seconds:
            now = ledger.view(job)
            assert not now.ended, "the control run lost nothing: the test proves nothing"
            if now.done != before.done:
                before, since = now, time.monotonic()
            time.sleep(0.1)
        return before


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """For processes that are started without `support.commands`."""
    return {**os.environ, **environment}
