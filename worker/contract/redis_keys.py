"""Every queue, task name and Redis key in one place.

Keys of one job share the hash tag `{JOB}`. All of them live under the key prefix of the settings
(`MASKMILL_REDIS__PREFIX`), which the broker's own keys get as well.
"""

from typing import NamedTuple

TASK_CHUNK = "maskmill.chunk"
"""The one task: a chunk of consecutive images of one job."""

EXPRESS_QUEUE = "images-express"
"""Served before `QUEUE`: chunks of jobs that have less than their share of the workers."""

QUEUE = "images"
"""The queue of chunk messages. Both are direct queues on the default exchange."""

QUEUES = (EXPRESS_QUEUE, QUEUE)
"""In the order in which workers look into them."""

JOB_PREFIX = "_maskmill/"
"""Folder under a job's destination that holds what is about the job rather than of it."""

BEHIND_JOBS = f"{JOB_PREFIX[:-1]}0"
"""Sorts behind every key under `JOB_PREFIX` and before all that follow: `0` comes after `/`."""


def task_id(job: str, epoch: int, chunk: int) -> str:
    """Celery task id of a chunk: image i of a job is in chunk `i // chunk_images`, so no ids are stored."""
    return f"{job}.{epoch}.{chunk}"


def parse_task_id(text: str) -> tuple[str, int, int] | None:
    """Job, epoch and chunk of a task id; None for an id that is not ours."""
    job, _, rest = text.partition(".")
    epoch, _, chunk = rest.partition(".")
    return (job, int(epoch), int(chunk)) if job and epoch.isdecimal() and chunk.isdecimal() else None


def queue(prefix: str, name: str) -> str:
    """List: messages waiting in a queue, the next one at its right end (kombu's layout)."""
    return f"{prefix}{name}"


def unacked(prefix: str) -> str:
    """Hash: delivered messages that are not acknowledged yet (kombu's layout)."""
    return f"{prefix}unacked"


def jobs(prefix: str) -> str:
    """Sorted set of all jobs, scored by the time of submission (Unix seconds)."""
    return f"{prefix}jobs"


def active(prefix: str) -> str:
    """Set of the jobs that have not ended: all that a feeder looks at."""
    return f"{prefix}active"


def job_key(prefix: str, key: str) -> str:
    """String: the job that was submitted with `--job-key KEY`."""
    return f"{prefix}key:{key}"


def workers(prefix: str) -> str:
    """Sorted set of worker processes, scored by the time they were last heard of (Unix seconds)."""
    return f"{prefix}workers"


def worker_facts(prefix: str) -> str:
    """Hash: worker process -> what it runs and how fast, as JSON."""
    return f"{prefix}worker-facts"


def leader(prefix: str, role: str) -> str:
    """String with an expiry: who does `role` for the whole fleet at the moment."""
    return f"{prefix}leader:{role}"


def job(prefix: str, job_id: str) -> str:
    """Hash: options, totals and counters of one job."""
    return f"{prefix}job:{{{job_id}}}"


class JobKeys(NamedTuple):
    """All keys of a job, in the order in which every script of the ledger takes them."""

    record: str
    """Hash: options, totals, counters, status."""

    images: str
    """String: four bits per image, its outcome (see `lua/head.lua`)."""

    attempts: str
    """Hash: chunk -> starts counted since it last made progress."""

    outstanding: str
    """Sorted set: published and unfinished chunks by when they were last heard of (Unix seconds)."""

    running: str
    """Hash: chunk -> the worker process that is running it."""

    suspects: str
    """Hash: what is known of chunks that killed their worker (see `lua/start.lua`)."""

    returned: str
    """String: a bit per chunk, set for those to publish before the cursor goes on: paused or retried."""

    failures: str
    """List: the first failures as JSON, capped."""

    log: str
    """Stream: outcomes not yet written to S3, as JSON."""


def job_keys(prefix: str, job_id: str) -> JobKeys:
    """The keys of one job."""
    record = job(prefix, job_id)
    return JobKeys(record, *(f"{record}:{part}" for part in ("img", "att", "out", "run", "sus", "ret", "err", "log")))
