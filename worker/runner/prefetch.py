"""Start the next chunk before the current one has ended, so that no core is idle between the two.

    model process                                 parent (Celery)
    last image of a chunk starts ── request ─────> takes one more message from the queue
    starts the chunk's first images <── packet ─── receives it; Celery hands it over once the model process is free
    start of the chunk: verdict `run` releases the images, any other drops them

Nothing is decided here: images ahead are fetched and computed, and are neither written nor recorded before the ledger
has given the chunk to this worker. A chunk that a worker has started before is not prefetched: it may have killed that
worker, and would affect the images of the current chunk as well. (A chunk that kills at its very first start costs the
current chunk its images in flight. They run again and are not blamed, since only an image that runs alone is.)
"""

from __future__ import annotations

import logging
import threading

from pydantic import ValidationError

from worker.contract.errors import MaskmillError
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage
from worker.runner.parent_channel import ParentChannel
from worker.runner.pipeline import Pipeline
from worker.runner.work_items import chunk_id, metadata, work_items
from worker.telemetry.timing import name_thread

log = logging.getLogger(__name__)


class Prefetcher:
    """The model process's side. Close it before the pipeline."""

    def __init__(self, ledger: ChunkLedger, pipeline: Pipeline, channel: ParentChannel) -> None:
        """Start a thread that waits for the next chunk."""
        self._ledger, self._pipeline, self._channel = ledger, pipeline, channel
        self._requested = False
        self._thread = threading.Thread(target=self._listen, name="prefetcher", daemon=True)
        self._thread.start()

    def request_next(self) -> None:
        """Request the next chunk, unless the worker stops; call it when the last images of a chunk start."""
        if not self._channel.stopping():
            self._requested = True
            self._channel.request_next()

    def close(self) -> None:
        """End the thread."""
        self._channel.close()
        self._thread.join()

    def _listen(self) -> None:
        name_thread()
        while (packet := self._channel.receive_next()) is not None:
            # A packet for a model process that died before this one: no chunk is in flight here to overlap with.
            requested, self._requested = self._requested, False
            if not requested:
                continue
            try:
                self._begin(ChunkMessage.model_validate_json(packet))
            except (MaskmillError, ValidationError) as error:
                log.info(error, extra=event("prefetch_skipped"))  # when the chunk starts, its own error is reported

    def _begin(self, message: ChunkMessage) -> None:
        options = self._ledger.options_if_unstarted(message)
        if options is not None:
            ahead = work_items(message, options, range(min(len(message.keys), self._pipeline.in_flight)))
            self._pipeline.begin_ahead(chunk_id(message), ahead, metadata(message, options))
