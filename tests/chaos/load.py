"""Submit jobs continuously, as a user does (`producer submit --job-key`), and pause or cancel some of them.

A job that too few replicas of Redis confirmed may be lost in a failover. The load then does what the message of
`submit` asks for: `producer recover`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.nodes import with_code
from support import commands
from support.edge_case_images import encoded, scene
from support.installation import Installation
from worker.contract.errors import JobNotFound, MaskmillError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

SETS = {24: 1, 80: 3, 200: 8, 1000: 40}
"""Number of images of a job -> how many of them cannot be decoded."""

USUAL_SIZES = (24, 80, 200)
"""Images of a job, unless a run asks for others."""

BACKLOG_IMAGES = 300

_COLUMNS = 20
_UPLOADS = 8
_LOOK_SECONDS = 2.0

_BAD = b"This is not a picture.\n" * 20


@dataclass
class Job:
    """One job and all attempts to submit it."""

    number: int
    images: int
    source: S3Url
    """Of this job alone, so that each read belongs to one job."""
    dest: S3Url
    fate: str
    """`whole`, `paused` for a while, or `cancelled`."""

    tries: int = 0
    id: str = ""
    joined: bool = False
    submitted_at: float = 0.0
    confirmed: bool = True
    """Whether `submit` said that enough replicas have the job."""
    gone: bool = False
    """Redis lost it, after `submit` had said that this may happen."""
    recovered: bool = False
    errors: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)


def size_of(index: int) -> tuple[int, int]:
    """Return width and height of a picture; no other of its source has them, so that a mask tells its picture."""
    return 64 + 2 * (index % _COLUMNS), 48 + 2 * (index // _COLUMNS)


def decodable(images: int, index: int) -> bool:
    """Return whether a picture of a job of that many images can be decoded: those at fixed positions cannot."""
    step = images // SETS[images]
    return not (index % step == 1 and index // step < SETS[images])


class Sources:
    """Uploads the pictures of each job: small ones, some of which cannot be decoded."""

    def __init__(self, store: ObjectStore) -> None:
        """Draw the pictures."""
        self._store = store
        self._drawn = [encoded(scene(size_of(index)), "JPEG", quality=85) for index in range(max(SETS))]

    def upload(self, source: S3Url, images: int) -> None:
        """Upload the pictures of one job."""

        def put(index: int) -> None:
            data = self._drawn[index] if decodable(images, index) else _BAD
            self._store.put(source / f"{index:04d}.jpg", data, content_type="image/jpeg")

        with ThreadPoolExecutor(_UPLOADS) as threads:
            list(threads.map(put, range(images)))


class Load:
    """A thread that submits jobs until `stop`; `jobs` lists them."""

    def __init__(
        self,
        installation: Installation,
        sources: Sources,
        ledger: Ledger,
        left: Callable[[], int],
        *,
        seed: int,
        codes: Sequence[Path | None] = (None,),
        sizes: Sequence[int] = USUAL_SIZES,
        backlog: int = BACKLOG_IMAGES,
    ) -> None:
        """Create a thread.

        Args:
            installation: where jobs go.
            sources: uploads their pictures.
            ledger: to pause and cancel jobs, and to look whether they are there.
            left: number of images that have not ended.
            seed: of sizes and fates.
            codes: folders of packages whose `producer` submits, in turns; None for the installed one.
            sizes: images of a job, each in `SETS`.
            backlog: another job is submitted while fewer images than this are left.
        """
        self._sizes, self._backlog = list(sizes), backlog
        self._installation, self._sources, self._ledger = installation, sources, ledger
        self._left, self._codes = left, codes
        self._rng = random.Random(seed + 1)
        self._enough, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._due: list[tuple[float, str, Job]] = []
        self.jobs: list[Job] = []
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def submit_no_more(self) -> None:
        """Submit no more jobs from now on; the thread looks after those that exist."""
        self._enough.set()

    def stop(self) -> None:
        """Wait until the due actions on jobs are done, and look after all jobs a last time. No failover follows."""
        self._enough.set()
        self._end.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        looked = 0.0
        try:
            while not self._end.wait(0.5):
                self._act()
                if time.monotonic() - looked > _LOOK_SECONDS:
                    self._look_after_jobs()
                    looked = time.monotonic()
                if not self._enough.is_set() and self._left() < self._backlog:
                    self._submit()
            while self._due:
                self._look_after_jobs()
                self._act()
                time.sleep(0.2)
            self._look_after_jobs()
        except BaseException as error:  # noqa: BLE001 -- raised again by `stop`
            self.error = error

    def _submit(self) -> None:
        number, bucket = len(self.jobs), self._installation.bucket
        images = self._rng.choice(self._sizes)
        fate = self._rng.choices(["whole", "paused", "cancelled"], [8, 1, 1])[0]
        job = Job(number, images, S3Url(bucket, f"in/{number:04d}/"), S3Url(bucket, f"out/{number:04d}/"), fate)
        self.jobs.append(job)
        self._sources.upload(job.source, images)
        while not job.id:
            job.tries += 1
            done = self._producer(
                job, "submit", str(job.source), str(job.dest), "--job-key", f"chaos-{number}", "--json"
            )
            if done.code == 0:
                line = json.loads(done.out)
                job.id, job.joined, job.submitted_at = line["job"], line["joined"], time.time()
                job.confirmed = line.get("confirmed", True)  # an older producer does not say
            else:
                job.errors.append(done.err.strip()[-300:])
                time.sleep(1)
        now = time.monotonic()
        if fate == "paused":
            self._due += [(now + 2, "pause", job), (now + 10, "resume", job)]
        elif fate == "cancelled":
            self._due.append((now + self._rng.uniform(1, 8), "cancel", job))

    def _producer(self, job: Job, *args: str) -> commands.Result:
        code = self._codes[job.number % len(self._codes)]
        return commands.run("producer", *args, settings=with_code(self._installation.environment, code))

    def _act(self) -> None:
        for due in sorted(self._due, key=lambda due: due[0]):
            at, action, job = due
            if at > time.monotonic():
                break
            try:
                getattr(self._ledger, action)(job.id)
                job.actions.append(action)
            except MaskmillError as error:
                if error.retryable or (isinstance(error, JobNotFound) and not job.confirmed):
                    continue  # Redis is down, or the job is about to be recovered: retry at the next call
                job.actions.append(f"{action}: too late")
            with suppress(ValueError):
                self._due.remove(due)

    def _look_after_jobs(self) -> None:
        """Recover unconfirmed jobs that Redis has lost, and resume jobs of which it has lost that they were resumed."""
        for job in self.jobs:
            if not job.id or (job.confirmed and job.actions[-1:] != ["resume"]):
                continue
            with suppress(MaskmillError):  # Redis is down: the next call looks again
                view = self._view(job)
                if view is None and not job.confirmed:
                    self._recover(job)
                elif view is not None and view.status is JobStatus.PAUSED and job.actions[-1:] == ["resume"]:
                    self._ledger.resume(job.id)
                    job.actions.append("resume")

    def _view(self, job: Job) -> JobView | None:
        try:
            return self._ledger.view(job.id)
        except JobNotFound:
            return None

    def _recover(self, job: Job) -> None:
        job.gone = True
        done = self._producer(job, "recover", job.id, str(job.dest))
        if done.code == 0:
            job.recovered = True
            job.actions.append("recovered")
        else:
            job.errors.append(done.err.strip()[-300:])
