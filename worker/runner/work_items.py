"""Turn a chunk message and the options of its job into work items for the pipeline."""

from __future__ import annotations

from collections.abc import Iterable

from worker.contract import redis_keys
from worker.contract.messages import ChunkMessage, JobOptions
from worker.runner import up_to_date
from worker.runner.pipeline import WorkItem


def chunk_id(message: ChunkMessage) -> str:
    """Return the id of a chunk, which is also its Celery task id."""
    return redis_keys.task_id(message.job, message.epoch, message.chunk)


def work_items(message: ChunkMessage, options: JobOptions, positions: Iterable[int]) -> list[WorkItem]:
    """Return the work items for the images at these positions of the message."""
    return [_work_item(message, options, position) for position in positions]


def metadata(message: ChunkMessage, options: JobOptions) -> dict[str, str]:
    """Return the metadata that every output carries about its job."""
    return {up_to_date.OPTIONS: options.digest(), up_to_date.JOB: message.job}


def _work_item(message: ChunkMessage, options: JobOptions, position: int) -> WorkItem:
    key = message.keys[position]
    keys = {kind: options.output_key(key, kind) for kind in options.outputs}
    return WorkItem(
        index=message.start + position,
        key=key,
        source=options.source / key,
        outputs={kind: options.dest / output for kind, output in keys.items()},
        output_keys=tuple(keys.values()),
        options=options,
    )
