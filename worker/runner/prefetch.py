"""Begins the next chunk before the one in work has ended, so that no core waits between two.

    child                                         parent (Celery)
    last image of a chunk begins ── asks ───────> takes one more message from the queue
    begins the chunk's first images <─ announces ── receives it, and hands it out once the child is free
    start of the chunk: verdict `run` lets them through, any other drops them

Nothing is decided here: images ahead are fetched and computed, and neither written nor recorded before the ledger has
given the chunk to this worker. A chunk that has been started before, here or elsewhere, is not begun ahead: it may have
killed its worker, and would take the images of another chunk along. (One that kills at its very first start costs the
chunk in work the images in flight, which are run again: they are not blamed, since blame needs a death alone.)
"""

from __future__ import annotations

import logging
import threading

from pydantic import ValidationError

from worker.contract.errors import MaskmillError
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage
from worker.runner.parent_channel import SharedState
from worker.runner.pipeline import Pipeline
from worker.runner.work_items import chunk_id, metadata, works
from worker.telemetry.timing import name_thread

log = logging.getLogger(__name__)


class Lookahead:
    """The child's side. Close it before the pipeline."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline, shared: SharedState) -> None:
        """Listens in a thread of its own."""
        self._ledger, self._pipeline, self._shared = ledger, pipeline, shared
        self._asked = False
        self._thread = threading.Thread(target=self._listen, name="lookahead", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """The last images of a chunk have begun: whatever comes next may begin."""
        if not self._shared.stopping():
            self._asked = True
            self._shared.ask()

    def close(self) -> None:
        """End the thread."""
        self._shared.hang_up()
        self._thread.join()

    def _listen(self) -> None:
        name_thread()
        while (packet := self._shared.announced()) is not None:
            # An announcement to a child that died before us: nothing is in work here that it could overlap with.
            asked, self._asked = self._asked, False
            if not asked:
                continue
            try:
                self._begin(ChunkMessage.model_validate_json(packet))
            except (MaskmillError, ValidationError) as error:
                log.info(error, extra=event("prefetch_skipped"))  # when the chunk starts, its own error is reported

    def _begin(self, message: ChunkMessage) -> None:
        options = self._ledger.fresh(message)
        if options is not None:
            ahead = works(message, options, range(min(len(message.keys), self._pipeline.in_flight)))
            self._pipeline.begin_ahead(chunk_id(message), ahead, metadata(message, options))
