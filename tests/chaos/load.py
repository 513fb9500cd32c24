"""Submit jobs continuously, as a user does (`producer submit --job-key`), and pause or cancel some of them."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.nodes import with_code
from support import commands
from support.edge_case_images import encoded, scene
from support.installation import Installation
from worker.contract.errors import MaskmillError
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

SETS = {24: 1, 80: 3, 200: 8}
"""Number of images of each source prefix -> how many of them cannot be decoded."""

BACKLOG_IMAGES = 800
"""Another job is submitted while fewer images than this are left."""

_COLUMNS = 20

_BAD = b"This is not a picture.\n" * 20


@dataclass
class Job:
    """One job and all attempts to submit it."""

    number: int
    images: int
    dest: S3Url
    fate: str
    """`whole`, `paused` for a while, or `cancelled`."""

    tries: int = 0
    id: str = ""
    joined: bool = False
    submitted_at: float = 0.0
    confirmed: bool = True
    """Whether `submit` said that enough replicas have the job."""
    errors: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)


def size_of(index: int) -> tuple[int, int]:
    """Return width and height of a picture; no other of its source has them, so that a mask tells its picture."""
    return 64 + 2 * (index % _COLUMNS), 48 + 2 * (index // _COLUMNS)


def make_sources(store: ObjectStore, bucket: str) -> None:
    """Upload small pictures; those at fixed positions are not decodable."""
    for images, bad in SETS.items():
        for index in range(images):
            broken = index % (images // bad) == 1 and index // (images // bad) < bad
            data = _BAD if broken else encoded(scene(size_of(index)), "JPEG", quality=85)
            store.put(S3Url(bucket, f"in-{images}/{index:04d}.jpg"), data, content_type="image/jpeg")


class Load:
    """A thread that submits jobs until `stop`; `jobs` lists them."""

    def __init__(
        self,
        installation: Installation,
        ledger: Ledger,
        left: Callable[[], int],
        seed: int,
        codes: Sequence[Path | None] = (None,),
    ) -> None:
        """Create a thread.

        Args:
            installation: where jobs go.
            ledger: to pause and cancel jobs.
            left: number of images that have not ended.
            seed: of sizes and fates.
            codes: folders of packages whose `producer` submits, in turns; None for the installed one.
        """
        self._installation, self._ledger, self._left, self._codes = installation, ledger, left, codes
        self._rng = random.Random(seed + 1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._due: list[tuple[float, str, Job]] = []
        self.jobs: list[Job] = []
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Submit no more jobs, and wait until the due actions on jobs are done."""
        self._end.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._end.wait(0.5):
                self._act()
                if self._left() < BACKLOG_IMAGES:
                    self._submit()
            while self._due:
                self._act()
                time.sleep(0.2)
        except BaseException as error:  # noqa: BLE001 -- raised again by `stop`
            self.error = error

    def _submit(self) -> None:
        number = len(self.jobs)
        images = self._rng.choice(list(SETS))
        fate = self._rng.choices(["whole", "paused", "cancelled"], [8, 1, 1])[0]
        job = Job(number, images, S3Url(self._installation.bucket, f"out/{number:04d}/"), fate)
        self.jobs.append(job)
        source = f"s3://{self._installation.bucket}/in-{images}/"
        while not job.id:
            job.tries += 1
            done = commands.run(
                "producer",
                *("submit", source, str(job.dest), "--job-key", f"chaos-{number}", "--json"),
                settings=with_code(self._installation.environment, self._codes[number % len(self._codes)]),
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

    def _act(self) -> None:
        for due in sorted(self._due, key=lambda due: due[0]):
            at, action, job = due
            if at > time.monotonic():
                break
            try:
                getattr(self._ledger, action)(job.id)
                job.actions.append(action)
            except MaskmillError as error:
                if error.retryable:
                    continue  # Redis is down: retry at the next call
                job.actions.append(f"{action}: too late")
            with suppress(ValueError):
                self._due.remove(due)
