"""Take a process out of work while S3 refuses it: a wrong key, an expired token, a wrong clock.

Such an answer says nothing about an image or a job, and another node may be accepted. So the chunk goes back to the
queue, the parent takes no more messages and sends no heartbeats (`worker.consumer.acceptance`), and a thread asks S3
again and again until it accepts this process.
"""

from __future__ import annotations

import logging
import threading

from worker.contract.errors import CALLER_ERRORS, MaskmillError, StoreUnavailable
from worker.contract.log_fields import event
from worker.contract.storage.s3 import ObjectStore
from worker.runner.parent_channel import ParentChannel
from worker.telemetry import metrics

log = logging.getLogger(__name__)

PROBE_SECONDS = 15.0


class Acceptance:
    """Whether S3 accepts this process. Close it to end its thread."""

    def __init__(self, store: ObjectStore, channel: ParentChannel, name: str, seconds: float = PROBE_SECONDS) -> None:
        """Ask nothing yet.

        Args:
            store: with the credentials of this process.
            channel: to the parent.
            name: of the worker process.
            seconds: between two probes while S3 refuses the process.
        """
        self._store, self._channel, self._name, self._seconds = store, channel, name, seconds
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._set(refused=False)

    def probe(self) -> bool:
        """Ask S3 before the first chunk; return whether it accepts this process, or cannot be asked."""
        try:
            self._store.probe()
        except CALLER_ERRORS as error:
            self.refused(error)
            return False
        except StoreUnavailable as error:
            log.warning(error, extra=event("store_waiting", code=error.code))
        return True

    def refused(self, error: MaskmillError) -> None:
        """Take the process out of work until a probe succeeds."""
        with self._lock:
            if self._channel.refused():
                return
            self._set(refused=True)
            log.error(error, extra=event("node_refused", code=error.code))
            self._thread = threading.Thread(target=self._wait, name="acceptance", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _wait(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self._store.probe()
            except MaskmillError:
                continue
            with self._lock:
                self._set(refused=False)
            log.info("takes chunks again", extra=event("node_accepted"))
            return

    def _set(self, *, refused: bool) -> None:
        self._channel.set_refused(refused)
        metrics.STORE_REFUSES.labels(self._name).set(int(refused))
