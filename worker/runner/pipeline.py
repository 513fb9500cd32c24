"""Run the images of a chunk, from S3 to S3. Knows neither Celery nor Redis.

    S3 GET -> decode -> tensor -> [engine] -> render -> S3 PUT

Each image is one function call in one thread. The stages of different images overlap because downloads, Pillow and
OpenVINO release the interpreter lock. The number of threads bounds the memory: no more decoded pictures exist at once.
To keep all cores busy between two chunks, the first images of the next chunk may start behind the last images of the
current one; they wait before anything is written (`worker.runner.prefetch`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.contract.errors import (
    CALLER_ERRORS,
    AccessDenied,
    ImageError,
    InvalidKey,
    MaskmillError,
    QuotaExceeded,
    ServiceError,
    StoreFailed,
    StoreUnavailable,
    TooLarge,
)
from worker.contract.input_size import InputSize
from worker.contract.log_fields import event
from worker.contract.messages import MAX_KEY_BYTES, MaskQuality, Outcome, OutcomeKind, OutputKind
from worker.contract.outputs import OutputOptions
from worker.contract.provenance import source_facts
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.contract.storage.s3 import ObjectStore
from worker.images.decode import decode
from worker.images.memory import Header, picture_peak
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.processes.heap import KEPT_BYTES, give_back_memory
from worker.runner.background_cache import BackgroundCache
from worker.runner.picture_memory import PictureMemory
from worker.runner.up_to_date import MODEL, existing_outcome
from worker.telemetry.timing import Observe, Stage, StageTimes, ignore_timing, name_thread

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
INTERNAL_ERROR = "internal_error"
"""Code of an outcome after an exception that is not one of our errors: a defect of ours. The log has the traceback."""

OUT_OF_MEMORY = "out_of_memory"
FAILED_CODES = frozenset(
    {kind.code for kind in ImageError.__subclasses__()}
    | {kind.code for kind in (ServiceError, AccessDenied, QuotaExceeded)}
    | {OUT_OF_MEMORY, INTERNAL_ERROR}
)
"""All codes of failed images. The README of the producer lists them."""


Stop = Callable[[], bool]
_Future = Future["Outcome | None"]


class StoreVerdict(Enum):
    """What becomes of an image for which S3 has failed in all attempts of one try."""

    DOWN = "S3 is down: no further image of the chunk starts, and all without an outcome run again"
    LATER = "this image runs again later; the chunk continues"
    GIVEN_UP = "S3 fails for this image alone: it fails"


OnStoreFailure = Callable[["WorkItem", StoreUnavailable], StoreVerdict]
"""Decides about an image for which S3 has failed. Called from the image's thread."""


class Network(Protocol):
    """What the pipeline needs from an inference engine."""

    @property
    def size(self) -> InputSize:
        """Height and width of the input in pixels."""
        ...

    def infer(self, tensor: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the mask, u8 [height, width], of a u8 [1, height, width, 3] tensor. Thread-safe."""
        ...


@dataclass(frozen=True)
class WorkItem:
    """One image to do: its source and the destination of each output."""

    index: int
    key: str
    source: S3Url
    outputs: Mapping[OutputKind, S3Url]
    output_keys: tuple[str, ...]
    options: OutputOptions = field(default_factory=OutputOptions)


class _DroppedError(Exception):
    """An image that was started ahead ends before it is decoded, because its chunk was dropped."""


@dataclass(frozen=True)
class _Made:
    """What is known about an image whose outputs are written."""

    quality: MaskQuality
    notes: tuple[str, ...]


class _Run:
    """The images of one chunk in flight, possibly started before the ledger has given the chunk to this worker."""

    def __init__(
        self, metadata: Mapping[str, str], *, granted: bool, skip_existing: bool = False, skip_own: bool = False
    ) -> None:
        self.metadata, self.skip_existing, self.skip_own = metadata, skip_existing, skip_own
        self.errors: list[BaseException] = []
        self.stop: Callable[[], bool] = _never
        self.on_store_failure: OnStoreFailure = _down
        self._granted = granted
        self._decided = threading.Event()
        if granted:
            self._decided.set()
        self._lock = threading.Lock()
        self._begun, self._last, self._nearly_done = 0, -1, _nothing

    def decide(self, granted: bool) -> None:
        """Let what has been computed ahead be written, or drop it."""
        self._granted = granted
        self._decided.set()

    @property
    def undecided(self) -> bool:
        """The ledger has not yet given the chunk to this worker."""
        return not self._decided.is_set()

    def may_write(self) -> bool:
        """Wait for the decision, and return whether outputs may be written."""
        self._decided.wait()
        return self._granted

    @property
    def over(self) -> bool:
        """No further image may start."""
        return bool(self.errors) or (self._decided.is_set() and not self._granted) or self.stop()

    def expect(self, images: int, nearly_done: Callable[[], None]) -> None:
        """Call `nearly_done` once, when the last but one of `images` images starts."""
        with self._lock:
            self._last, self._nearly_done = max(0, images - 2), nearly_done
            due = self._begun > self._last
        if due:
            nearly_done()

    def note_begun(self) -> None:
        """Count an image that starts."""
        with self._lock:
            due = self._begun == self._last
            self._begun += 1
        if due:
            self._nearly_done()


@dataclass(frozen=True)
class _Ahead:
    """The first images of a chunk that may be the next one."""

    chunk: str
    run: _Run
    work_items: Sequence[WorkItem]
    futures: Mapping[int, _Future]
    """By the position of the image in its job."""


class Pipeline:
    """Runs chunks through one network. Close it to end its threads."""

    def __init__(
        self,
        store: ObjectStore,
        network: Network,
        network_digest: str,
        limits: LimitSettings,
        *,
        in_flight: int,
        memory: PictureMemory | None = None,
        observe: Observe = ignore_timing,
        working: Callable[[int], None] = lambda change: None,
    ) -> None:
        """Start `in_flight` threads on the cores that the process may use.

        Args:
            store: holds the sources and takes the outputs.
            network: computes masks.
            network_digest: of the network, for the metadata of outputs.
            limits: of an image.
            in_flight: images in memory at once.
            memory: for these images; None: without a limit.
            observe: receives the stage, wall seconds and CPU seconds of every stage, at the end of the image and before
                it waits for the decision about its chunk.
            working: receives 1 when an image starts and -1 when it ends.
        """
        self.store, self._network, self._limits = store, network, limits
        self._network_digest, self._observe, self._working = network_digest, observe, working
        self._memory = memory or PictureMemory(None)
        self._backgrounds = BackgroundCache(store, limits)
        self.in_flight = in_flight
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="image", initializer=name_thread)
        self._lock = threading.Lock()
        self._ahead: _Ahead | None = None
        self._current = ""
        self._closed = False

    def run(
        self,
        work_items: Sequence[WorkItem],
        *,
        record: Callable[[Outcome], None],
        poll: Callable[[], float | None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        metadata: Mapping[str, str] | None = None,
        skip_existing: bool = False,
        skip_own: bool = False,
        chunk: str = "",
        nearly_done: Callable[[], None] = lambda: None,
        on_store_failure: OnStoreFailure | None = None,
    ) -> list[Outcome]:
        """Run all images and return their outcomes in the order of completion.

        Args:
            work_items: the images.
            record: called in this thread for each outcome as it completes.
            poll: called in this thread while it waits for outcomes; returns the seconds until it must be called again,
                or None: only after the next outcome.
            stop: called before each image starts; once it returns true, no further image starts.
            metadata: of every output, besides the facts of its source and the model's digest.
            skip_existing: skip images whose outputs are up to date.
            skip_own: skip those whose outputs this job has made; they are `ok`, without facts about their masks.
            chunk: id under which `begin_ahead` may have started the images; empty if none.
            nearly_done: called once, from any thread, when the last images start.
            on_store_failure: decides about an image for which S3 has failed, once the chunk belongs to this worker.

        Raises:
            ServiceError: a retryable one. Images without an outcome have not been recorded and may run again.
        """
        outcomes: list[Outcome] = []
        futures, run = self._begin(
            work_items,
            metadata or {},
            skip_existing=skip_existing,
            skip_own=skip_own,
            chunk=chunk,
            stop=stop,
            on_store_failure=on_store_failure or _down,
        )
        try:
            run.expect(len(work_items), nearly_done)
            for future in _completed(futures, poll):
                outcome = future.result()
                if outcome is not None:
                    record(outcome)
                    outcomes.append(outcome)
        except BaseException as error:
            run.errors.append(error)
            wait(futures)  # when this returns, no image of the chunk is in flight
            raise
        if run.errors:
            raise run.errors[0]
        return outcomes

    def begin_ahead(self, chunk: str, work_items: Sequence[WorkItem], metadata: Mapping[str, str]) -> None:
        """Fetch and compute images behind those in flight; write nothing before `run` is called for the same chunk.

        Drops what was started ahead before. The images use the same threads as all others, so no more memory.

        Args:
            chunk: id of the chunk, not empty.
            work_items: its images, of which at most `in_flight` start.
            metadata: as in `run`.
        """
        with self._lock:
            self._drop()
            if self._closed or chunk == self._current:
                return
            run, first = _Run(metadata, granted=False), work_items[: self.in_flight]
            self._ahead = _Ahead(chunk, run, first, {work.index: self._submit(run, work) for work in first})

    def drop_ahead(self) -> None:
        """Drop what was started ahead."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """End the threads; drop images that have not started."""
        with self._lock:
            self._closed = True
            self._drop()
        self._threads.shutdown(cancel_futures=True)

    def _drop(self) -> None:
        if self._ahead is not None:
            self._ahead.run.decide(False)
            self._ahead = None

    def _begin(
        self,
        work_items: Sequence[WorkItem],
        metadata: Mapping[str, str],
        *,
        skip_existing: bool,
        skip_own: bool,
        chunk: str,
        stop: Stop,
        on_store_failure: OnStoreFailure,
    ) -> tuple[list[_Future], _Run]:
        """Submit the images that are not in flight yet, behind those that are."""
        with self._lock:
            ahead, self._current = self._ahead, chunk
            fits = ahead is not None and chunk == ahead.chunk and metadata == ahead.run.metadata
            fits = fits and not skip_existing and not skip_own
            if ahead is None or not fits or any(work not in work_items for work in ahead.work_items):
                self._drop()
                run = _Run(metadata, granted=True, skip_existing=skip_existing, skip_own=skip_own)
                run.stop, run.on_store_failure = stop, on_store_failure
                return [self._submit(run, work) for work in work_items], run
            self._ahead = None
            ahead.run.stop, ahead.run.on_store_failure = stop, on_store_failure
            ahead.run.decide(True)
            begun = ahead.futures
            return [begun.get(work.index) or self._submit(ahead.run, work) for work in work_items], ahead.run

    def _submit(self, run: _Run, work: WorkItem) -> _Future:
        return self._threads.submit(self._one, run, work)

    def _one(self, run: _Run, work: WorkItem) -> Outcome | None:
        if run.over:
            return None
        run.note_begun()
        self._working(1)
        spent = StageTimes(self._observe)
        try:
            return self._image(work, run, spent)
        except ServiceError as error:
            run.errors.append(error)  # here and not in `run`: this thread's next image must see it
            return None
        finally:
            spent.report()
            self._working(-1)

    def _store_failure(self, work: WorkItem, run: _Run, error: StoreUnavailable) -> str | None:
        """Return the message of an image that S3 fails to read or write for good; None if it runs again.

        Raises:
            StoreUnavailable: S3 itself is down.
        """
        if not run.may_write():
            return None
        verdict = run.on_store_failure(work, error)
        if verdict is StoreVerdict.DOWN:
            raise error
        if verdict is StoreVerdict.LATER:
            return None
        return f"S3 failed for this object again and again, and served others meanwhile; its last answer: {error}"

    def _image(self, work: WorkItem, run: _Run, spent: StageTimes) -> Outcome | None:
        started = time.monotonic()
        kind, made = None, None
        metadata = {MODEL: self._network_digest, **run.metadata}
        try:
            _check_keys(work)
            kind = self._existing(work, run, metadata, spent)
            if kind is None:
                made = self._transform(work, run, metadata, spent)
                if made is None:
                    return None
        except StoreUnavailable as error:
            message = self._store_failure(work, run, error)
            return None if message is None else _failed(work, StoreFailed.code, message, started, spent)
        except (ImageError, ServiceError) as error:
            if error.retryable:
                raise
            if isinstance(error, CALLER_ERRORS):
                error = self._error_of_image(error, started)
            return _failed(work, error.code, str(error), started, spent)
        except MemoryError:
            log.exception("image failed", extra=event("out_of_memory", image=work.index, source=str(work.source)))
            return _failed(work, OUT_OF_MEMORY, "not enough memory for this image", started, spent)
        except Exception as error:
            log.exception("image failed", extra=event("internal_error", image=work.index, source=str(work.source)))
            return _failed(work, INTERNAL_ERROR, f"{type(error).__name__}; see the worker's log", started, spent)
        return Outcome(
            index=work.index,
            key=work.key,
            kind=kind or OutcomeKind.OK,
            outputs=work.output_keys,
            seconds=round(time.monotonic() - started, 4),
            stages=spent.seconds(),
            quality=made.quality if made else None,
            notes=made.notes if made else (),
        )

    def _existing(
        self, work: WorkItem, run: _Run, metadata: Mapping[str, str], spent: StageTimes
    ) -> OutcomeKind | None:
        """Return the outcome of an image that need not be done, because its outputs exist; None if it must be done."""
        if not run.skip_existing and not run.skip_own:
            return None
        try:
            with spent.timed(Stage.CHECK):
                kind = existing_outcome(self.store, work.source, work.outputs.values(), metadata)
        except AccessDenied as error:
            if run.skip_existing or isinstance(error, CALLER_ERRORS):
                raise
            return None  # this worker may write the outputs and not read them, which is enough to do the image again
        return kind if run.skip_existing or kind is OutcomeKind.OK else None

    def _error_of_image(self, error: MaskmillError, started: float) -> AccessDenied:
        """Return the error of an image whose request alone is refused as if the caller were unknown.

        Raises:
            CredentialsRefused, ClockSkewed: S3 refuses this process whatever it asks for, or cannot be asked; or the
                keys have changed since the image was started, so that the old ones may have been refused.
        """
        try:
            self.store.probe()
        except ServiceError:
            raise error from None
        if self.store.keys_changed_since(started):
            raise error from None
        return AccessDenied(f"{error}; S3 accepts other requests of this worker, so a gateway may rewrite this key")

    def _transform(self, work: WorkItem, run: _Run, metadata: Mapping[str, str], spent: StageTimes) -> _Made | None:
        """Do all stages of one image; return None if it was started ahead and its chunk was dropped."""
        taken: list[int] = []
        try:
            return self._transform_within(work, run, metadata, spent, taken)
        except _DroppedError:
            return None
        finally:
            self._memory.give_back(sum(taken))
            if sum(taken) > KEPT_BYTES:
                give_back_memory()

    def _admit(self, header: Header, work: WorkItem, run: _Run, taken: list[int]) -> None:
        """Take the memory of a picture, or wait until it is free.

        Raises:
            TooLarge: the picture needs more than the process has for all pictures.
            _DroppedError: it was started ahead, and its chunk was dropped.
        """
        size = picture_peak(header, work.options)
        if not self._memory.can_ever_take(size):
            raise TooLarge(
                f"{header.width} x {header.height} pixels as {header.format} need about {size // _MIB:,} MiB for these "
                f"outputs, more than the {self._memory.total_mib:,} MiB of a process; increase "
                "MASKMILL_LIMITS__PICTURE_MEMORY_MIB and the memory of the node, or use --max-side or PNG outputs"
            )
        if not self._memory.try_take(size):
            if not run.may_write():  # waits for the decision about a chunk that was started ahead
                raise _DroppedError
            # What images ahead hold comes free only when the current ones are done, so they make room.
            self._memory.take(size, before_waiting=self.drop_ahead)
        taken.append(size)

    def _transform_within(
        self, work: WorkItem, run: _Run, metadata: Mapping[str, str], spent: StageTimes, taken: list[int]
    ) -> _Made | None:
        background = self._backgrounds.get(work.options)
        with spent.timed(Stage.FETCH):
            data, info = self.store.get(work.source, max_bytes=self._limits.max_object_mib * _MIB)
        with spent.timed(Stage.DECODE):
            target = decode_target(work.options, self._network.size)
            picture = decode(data, self._limits, target, lambda header: self._admit(header, work, run, taken))
        del data
        with spent.timed(Stage.PREPARE):
            tensor = to_tensor(picture, self._network.size)
        with spent.timed(Stage.INFER):
            mask = self._network.infer(tensor)
        del tensor
        with spent.timed(Stage.RENDER):
            quality, outputs = render(picture, mask, work.options, background)
            rendered = next(outputs, None)
        origin = source_facts(etag=info.etag, size=info.size, modified=info.modified) | dict(metadata)
        while rendered is not None:
            kind, content = rendered
            if run.undecided:
                spent.report()
                with spent.timed(Stage.HOLD):
                    run.may_write()
            if not run.may_write():  # checked for every image: the chunk may have been dropped while this one started
                return None
            with spent.timed(Stage.STORE):
                content_type = work.options.format_of(kind).content_type
                self.store.put(work.outputs[kind], content, content_type=content_type, metadata=origin)
            del content, rendered
            if kind == work.options.outputs[-1]:
                break
            with spent.timed(Stage.RENDER):
                rendered = next(outputs, None)
        return _Made(quality, picture.notes)


def _completed(futures: Sequence[_Future], poll: Callable[[], float | None]) -> Iterator[_Future]:
    """Yield futures as they complete, and call `poll` while waiting (see `Pipeline.run`)."""
    done: SimpleQueue[_Future] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    left = len(futures)
    while left:
        try:
            future = done.get(timeout=poll())
        except Empty:
            continue
        left -= 1
        yield future


def _check_keys(work: WorkItem) -> None:
    """Refuse keys that S3 does not allow: a list of another program, or an older version, submitted them."""
    for place in (work.source, *work.outputs.values()):
        if not work.key or len(place.key.encode()) > MAX_KEY_BYTES:
            raise InvalidKey(f"{place}: a key must have 1 to {MAX_KEY_BYTES:,} bytes; rename the object")


def _never() -> bool:
    return False


def _down(work: WorkItem, error: StoreUnavailable) -> StoreVerdict:
    return StoreVerdict.DOWN


def _nothing() -> None:
    pass


def _failed(work: WorkItem, code: str, message: str, started: float, spent: StageTimes) -> Outcome:
    return Outcome(
        index=work.index,
        key=work.key,
        kind=OutcomeKind.FAILED,
        code=code,
        message=message,
        seconds=round(time.monotonic() - started, 4),
        stages=spent.seconds(),
    )
