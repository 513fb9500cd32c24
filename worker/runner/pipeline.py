"""One chunk of images, from S3 to S3. Knows neither Celery nor Redis.

    S3 GET -> decode -> tensor -> [engine] -> render -> S3 PUT

Each image is a plain function in a thread of its own; the stages of different images overlap because downloads,
Pillow and OpenVINO all let go of the interpreter lock. The number of threads bounds the memory: so many decoded
pictures exist at most. So that no core waits between two chunks, the first images of the next one may be begun behind
the last of the one in work, up to the point where something would be written (`worker.runner.prefetch`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.contract.errors import ImageError, ServiceError
from worker.contract.input_size import InputSize
from worker.contract.log_fields import event
from worker.contract.messages import MaskQuality, Outcome, OutcomeKind, OutputKind
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.contract.storage.s3 import ObjectStore
from worker.images.decode import decode
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.runner.background_cache import Backgrounds
from worker.runner.up_to_date import MODEL, SOURCE_ETAG, standing
from worker.telemetry.timing import Observe, Spent, Stage, name_thread, nobody

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
INTERNAL_ERROR = "internal_error"
"""Code of an outcome that none of our own errors explains: a defect of ours; the log has the traceback."""


Stop = Callable[[], bool]


class Network(Protocol):
    """What the pipeline needs of an engine."""

    @property
    def size(self) -> InputSize:
        """Height and width of its input in pixels."""
        ...

    def infer(self, tensor: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Mask u8 [height, width] of the u8 [1, height, width, 3] tensor; callable from several threads."""
        ...


@dataclass(frozen=True)
class Work:
    """One image to do: where it is, and where each output goes."""

    index: int
    key: str
    source: S3Url
    outputs: Mapping[OutputKind, S3Url]
    output_keys: tuple[str, ...]
    options: OutputOptions = field(default_factory=OutputOptions)


class _Run:
    """The images of one chunk, as they go; perhaps begun before the chunk is known to be ours."""

    def __init__(self, metadata: Mapping[str, str], *, skip_existing: bool, wanted: bool) -> None:
        self.metadata, self.skip_existing = metadata, skip_existing
        self.trouble: list[BaseException] = []
        self.stop: Callable[[], bool] = _never
        self._wanted = wanted
        self._decided = threading.Event()
        if wanted:
            self._decided.set()
        self._lock = threading.Lock()
        self._begun, self._last, self._nearly_done = 0, -1, _nothing

    def decide(self, wanted: bool) -> None:
        """Whether what has been computed ahead is written or dropped."""
        self._wanted = wanted
        self._decided.set()

    @property
    def undecided(self) -> bool:
        """The chunk may still turn out not to be ours."""
        return not self._decided.is_set()

    def may_write(self) -> bool:
        """Wait for that."""
        self._decided.wait()
        return self._wanted

    @property
    def over(self) -> bool:
        """No further image begins."""
        return bool(self.trouble) or (self._decided.is_set() and not self._wanted) or self.stop()

    def expect(self, images: int, nearly_done: Callable[[], None]) -> None:
        """Have `nearly_done` called once, when the last but one of so many images begins."""
        with self._lock:
            self._last, self._nearly_done = max(0, images - 2), nearly_done
            due = self._begun > self._last
        if due:
            nearly_done()

    def note_begun(self) -> None:
        """One more image begins."""
        with self._lock:
            due = self._begun == self._last
            self._begun += 1
        if due:
            self._nearly_done()


@dataclass(frozen=True)
class _Ahead:
    """The first images of a chunk that may come next."""

    chunk: str
    run: _Run
    works: Sequence[Work]
    futures: Mapping[int, Future[Outcome | None]]
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
        observe: Observe = nobody,
        working: Callable[[int], None] = lambda change: None,
    ) -> None:
        """Make `in_flight` threads, on whatever cores the process may use.

        `observe` learns where the time goes; `working` is told 1 when an image begins and -1 when it ends.
        """
        self._store, self._network, self._limits = store, network, limits
        self._network_digest, self._observe, self._working = network_digest, observe, working
        self._backgrounds = Backgrounds(store, limits)
        self.in_flight = in_flight
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="image", initializer=name_thread)
        self._lock = threading.Lock()
        self._ahead: _Ahead | None = None
        self._current = ""
        self._closed = False

    def run(
        self,
        works: Sequence[Work],
        *,
        record: Callable[[Outcome], None],
        stop: Callable[[], bool] = lambda: False,
        metadata: Mapping[str, str] | None = None,
        skip_existing: bool = False,
        chunk: str = "",
        nearly_done: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Do all images; returns their outcomes in the order of completion.

        Args:
            works: the images.
            record: called in this thread for each outcome as it comes.
            stop: asked before each image starts; once true, no further image does.
            metadata: what every output carries beside the source's ETag and the model's digest.
            skip_existing: leave images alone whose outputs are up to date.
            chunk: what `begin_ahead` was told, where it was.
            nearly_done: called once, from any thread, when the last images begin.

        Raises:
            ServiceError: a retryable one. Images without an outcome have not been recorded and may be run again.
        """
        outcomes: list[Outcome] = []
        futures, run = self._begin(works, metadata or {}, skip_existing=skip_existing, chunk=chunk, stop=stop)
        try:
            run.expect(len(works), nearly_done)
            for future in as_completed(futures):
                outcome = future.result()
                if outcome is not None:
                    record(outcome)
                    outcomes.append(outcome)
        except BaseException as error:
            run.trouble.append(error)
            wait(futures)  # nothing goes on behind the back of who is told that this chunk ended
            raise
        if run.trouble:
            raise run.trouble[0]
        return outcomes

    def begin_ahead(self, chunk: str, works: Sequence[Work], metadata: Mapping[str, str]) -> None:
        """Fetch and compute images behind those in work; nothing is written before `run` is called for the same chunk.

        Whatever was begun ahead before is dropped. They take the threads of other images, not more memory.

        Args:
            chunk: names them; empty is no name.
            works: at most `in_flight` of them are begun.
            metadata: as for `run`.
        """
        with self._lock:
            self._drop()
            if self._closed or chunk == self._current:
                return
            run, works = _Run(metadata, skip_existing=False, wanted=False), works[: self.in_flight]
            self._ahead = _Ahead(chunk, run, works, {work.index: self._submit(run, work) for work in works})

    def drop_ahead(self) -> None:
        """What was begun ahead is not wanted."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """End the threads; images not yet started are dropped."""
        with self._lock:
            self._closed = True
            self._drop()
        self._threads.shutdown(cancel_futures=True)

    def _drop(self) -> None:
        if self._ahead is not None:
            self._ahead.run.decide(False)
            self._ahead = None

    def _begin(
        self, works: Sequence[Work], metadata: Mapping[str, str], *, skip_existing: bool, chunk: str, stop: Stop
    ) -> tuple[list[Future[Outcome | None]], _Run]:
        """Submit the images that are not in work yet, behind those that are."""
        with self._lock:
            ahead, self._current = self._ahead, chunk
            fits = ahead is not None and chunk == ahead.chunk and metadata == ahead.run.metadata and not skip_existing
            if ahead is None or not fits or any(work not in works for work in ahead.works):
                self._drop()
                run = _Run(metadata, skip_existing=skip_existing, wanted=True)
                run.stop = stop
                return [self._submit(run, work) for work in works], run
            self._ahead = None
            ahead.run.stop = stop
            ahead.run.decide(True)
            begun = ahead.futures
            return [begun.get(work.index) or self._submit(ahead.run, work) for work in works], ahead.run

    def _submit(self, run: _Run, work: Work) -> Future[Outcome | None]:
        return self._threads.submit(self._one, run, work)

    def _one(self, run: _Run, work: Work) -> Outcome | None:
        if run.over:
            return None
        run.note_begun()
        self._working(1)
        try:
            return self._image(work, run)
        except ServiceError as error:
            run.trouble.append(error)  # here, not by who waits: this thread's next image must see it
            return None
        finally:
            self._working(-1)

    def _image(self, work: Work, run: _Run) -> Outcome | None:
        started = time.monotonic()
        kind, quality, spent = None, None, Spent(self._observe)
        metadata = {MODEL: self._network_digest, **run.metadata}
        try:
            if run.skip_existing:
                with spent.timed(Stage.CHECK):
                    kind = standing(self._store, work.source, work.outputs.values(), metadata)
            if kind is None:
                quality = self._transform(work, run, metadata, spent)
                if quality is None:
                    return None
        except (ImageError, ServiceError) as error:
            if error.retryable:
                raise
            return _failed(work, error.code, str(error), started, spent)
        except MemoryError:
            log.exception("image failed", extra=event("out_of_memory", image=work.index, source=str(work.source)))
            return _failed(work, "out_of_memory", "not enough memory for this image", started, spent)
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
            quality=quality,
        )

    def _transform(self, work: Work, run: _Run, metadata: Mapping[str, str], spent: Spent) -> MaskQuality | None:
        """All of one image; None if it was begun ahead in vain."""
        background = self._backgrounds.of(work.options)
        with spent.timed(Stage.FETCH):
            data, info = self._store.get(work.source, max_bytes=self._limits.max_object_mib * _MIB)
        with spent.timed(Stage.DECODE):
            picture = decode(data, self._limits, decode_target(work.options, self._network.size))
        del data
        with spent.timed(Stage.PREPARE):
            tensor = to_tensor(picture, self._network.size)
        with spent.timed(Stage.INFER):
            mask = self._network.infer(tensor)
        del tensor
        with spent.timed(Stage.RENDER):
            quality, outputs = render(picture, mask, work.options, background)
            rendered = next(outputs, None)
        origin = {SOURCE_ETAG: info.etag, **metadata}
        while rendered is not None:
            kind, content = rendered
            if run.undecided:
                with spent.timed(Stage.HOLD):
                    run.may_write()
            if not run.may_write():  # asked of every image: the chunk may have been dropped while this one began
                return None
            with spent.timed(Stage.STORE):
                content_type = work.options.format_of(kind).content_type
                self._store.put(work.outputs[kind], content, content_type=content_type, metadata=origin)
            del content, rendered
            if kind == work.options.outputs[-1]:
                break
            with spent.timed(Stage.RENDER):
                rendered = next(outputs, None)
        return quality


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


def _failed(work: Work, code: str, message: str, started: float, spent: Spent) -> Outcome:
    return Outcome(
        index=work.index,
        key=work.key,
        kind=OutcomeKind.FAILED,
        code=code,
        message=message,
        seconds=round(time.monotonic() - started, 4),
        stages=spent.seconds(),
    )
