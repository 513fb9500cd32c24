"""Names of all queues, of the task, and of all Redis keys.

The keys of one job share the hash tag `{JOB}`. All keys start with the key prefix of the settings
(`MASKMILL_REDIS__PREFIX`), and so do the broker's own keys.
"""

from typing import NamedTuple

from worker.contract.errors import JobNotFound, SettingsError
from worker.contract.printable import is_utf8

TASK_CHUNK = "maskmill.chunk"
"""The only task: run a chunk of consecutive images of one job."""

EXPRESS_QUEUE = "images-express"
"""Queue that workers serve before `QUEUE`: chunks of jobs that have less than their share of the workers."""

QUEUE = "images"
"""Queue of all other chunk messages. Both are direct queues on the default exchange."""

QUEUES = (EXPRESS_QUEUE, QUEUE)
"""In the order in which workers serve them."""


def task_id(job: str, epoch: int, chunk: int) -> str:
    """Return the Celery task id of a chunk. Image i of a job is in chunk `i // chunk_images`, so no ids are stored."""
    return f"{job}.{epoch}.{chunk}"


def parse_task_id(text: str) -> tuple[str, int, int] | None:
    """Return job, epoch and chunk of a task id; None for an id in another format."""
    job, _, rest = text.partition(".")
    epoch, _, chunk = rest.partition(".")
    return (job, int(epoch), int(chunk)) if job and epoch.isdecimal() and chunk.isdecimal() else None


def queue(prefix: str, name: str) -> str:
    """List: messages that wait in a queue, the next one at the right end (kombu's layout)."""
    return f"{prefix}{name}"


def unacked(prefix: str) -> str:
    """Hash: messages delivered and not yet acknowledged (kombu's layout)."""
    return f"{prefix}unacked"


def unacked_index(prefix: str) -> str:
    """Sorted set: delivery tags of these messages by the last renewal of their lease (kombu's layout)."""
    return f"{prefix}unacked_index"


def jobs(prefix: str) -> str:
    """Sorted set: all jobs by the time of submission (Unix seconds)."""
    return f"{prefix}jobs"


def active(prefix: str) -> str:
    """Set: the jobs that have not ended, which are all that the steward reads."""
    return f"{prefix}active"


def unreadable(prefix: str) -> str:
    """Set: the jobs that the steward has put aside because their records cannot be read."""
    return f"{prefix}unreadable"


def job_key(prefix: str, key: str) -> str:
    """String: the job submitted with `--job-key KEY`.

    Raises:
        SettingsError: the key is not valid Unicode text.
    """
    if not is_utf8(key):
        raise SettingsError(f"--job-key {key!r:.80} is not valid Unicode text")
    return f"{prefix}key:{key}"


def workers(prefix: str) -> str:
    """Sorted set: worker processes by the time of their last heartbeat (Unix seconds)."""
    return f"{prefix}workers"


def worker_facts(prefix: str) -> str:
    """Hash: worker process -> what it runs, as JSON (`WorkerFacts`); `start-failure:NODE` -> `StartFailure`."""
    return f"{prefix}worker-facts"


def leader(prefix: str, role: str) -> str:
    """String with an expiry: token of the process that leads `role`."""
    return f"{prefix}leader:{role}"


def primary(prefix: str) -> str:
    """Hash: which server is the primary, and since when, as far as the steward has noticed (`lua/primary.lua`)."""
    return f"{prefix}primary"


def shared(prefix: str) -> dict[str, str]:
    """Return the keys that all jobs share, with their types: first the index of active jobs, then that of all jobs."""
    return {
        active(prefix): "set",
        jobs(prefix): "zset",
        unreadable(prefix): "set",
        workers(prefix): "zset",
        worker_facts(prefix): "hash",
        unacked(prefix): "hash",
        primary(prefix): "hash",
        **{queue(prefix, name): "list" for name in QUEUES},
    }


def job(prefix: str, job_id: str) -> str:
    """Hash: the record of one job (see `JobKeys.record`).

    Raises:
        JobNotFound: the id is not valid Unicode text.
    """
    if not is_utf8(job_id):
        raise JobNotFound(f"{job_id!r:.80} is not the id of a job: it is not valid Unicode text")
    return f"{prefix}job:{{{job_id}}}"


class JobKeys(NamedTuple):
    """All keys of a job, in the order in which the ledger's scripts take them."""

    record: str
    """Hash: options, totals, counters and status."""

    images: str
    """String: the outcome of each image in four bits (see `lua/head.lua`)."""

    attempts: str
    """Hash: chunk -> starts since its last progress."""

    outstanding: str
    """Sorted set: published and unfinished chunks by the time of their last sign of life (Unix seconds)."""

    running: str
    """Hash: chunk -> the worker process that runs it."""

    suspects: str
    """Hash: chunks that killed workers, and the images suspected of it (see `lua/start.lua`)."""

    returned: str
    """String: one bit per chunk, set if the chunk must be published before those at the cursor: paused or retried."""

    failures: str
    """List: the first failures as JSON, limited in number."""

    log: str
    """Stream: outcomes that are not in S3 yet, as JSON."""


def job_keys(prefix: str, job_id: str) -> JobKeys:
    """Return the keys of one job."""
    record = job(prefix, job_id)
    return JobKeys(record, *(f"{record}:{part}" for part in ("img", "att", "out", "run", "sus", "ret", "err", "log")))
