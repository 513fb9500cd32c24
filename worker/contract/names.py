"""Every queue, task name and Redis key in one place.

Keys of one job share the hash tag `{JOB}`. All of them live under the key prefix of the settings
(`MASKMILL_REDIS__PREFIX`), which the broker's own keys get as well.
"""

TASK_CHUNK = "maskmill.chunk"
"""The one task: a chunk of consecutive images of one job."""

QUEUE = "images"
"""The queue of chunk messages, a direct queue on the default exchange."""

JOB_PREFIX = "_maskmill/"
"""Folder under a job's destination that holds what is about the job rather than of it."""


def task_id(job: str, epoch: int, chunk: int) -> str:
    """Celery task id of a chunk: image i of a job is in chunk `i // chunk_images`, so no ids are stored."""
    return f"{job}.{epoch}.{chunk}"


def jobs(prefix: str) -> str:
    """Sorted set of all jobs, scored by the time of submission (Unix seconds)."""
    return f"{prefix}jobs"


def job(prefix: str, job_id: str) -> str:
    """Hash: options, totals and counters of one job."""
    return f"{prefix}job:{{{job_id}}}"


def states(prefix: str, job_id: str) -> str:
    """String: four bits per image, its outcome (see `lua/states.lua`)."""
    return f"{job(prefix, job_id)}:img"


def attempts(prefix: str, job_id: str) -> str:
    """Hash: chunk -> starts counted since it last made progress."""
    return f"{job(prefix, job_id)}:att"


def outstanding(prefix: str, job_id: str) -> str:
    """Sorted set: published and unfinished chunks, scored by the time they were last heard of (Unix seconds)."""
    return f"{job(prefix, job_id)}:out"


def failures(prefix: str, job_id: str) -> str:
    """List: the first failures as JSON, capped (`ledger.MAX_FAILURES`)."""
    return f"{job(prefix, job_id)}:err"
