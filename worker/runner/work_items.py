"""From a message and the options of its job to images to do."""

from __future__ import annotations

from collections.abc import Iterable

from worker.contract import redis_keys
from worker.contract.messages import ChunkMessage, JobOptions
from worker.runner import up_to_date
from worker.runner.pipeline import Work


def chunk_id(message: ChunkMessage) -> str:
    """Names a chunk, also its Celery task."""
    return redis_keys.task_id(message.job, message.epoch, message.chunk)


def works(message: ChunkMessage, options: JobOptions, positions: Iterable[int]) -> list[Work]:
    """The images at these positions of the message."""
    return [_work(message, options, position) for position in positions]


def metadata(message: ChunkMessage, options: JobOptions) -> dict[str, str]:
    """What outputs carry of the job that asked for them."""
    return {up_to_date.OPTIONS: options.digest(), up_to_date.JOB: message.job}


def _work(message: ChunkMessage, options: JobOptions, position: int) -> Work:
    key = message.keys[position]
    keys = {kind: options.output_key(key, kind) for kind in options.outputs}
    return Work(
        index=message.start + position,
        key=key,
        source=options.source / key,
        outputs={kind: options.dest / output for kind, output in keys.items()},
        output_keys=tuple(keys.values()),
        options=options,
    )
