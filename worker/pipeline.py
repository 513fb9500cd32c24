"""One chunk of images, from S3 to S3. Knows neither Celery nor Redis.

    S3 GET -> decode -> tensor -> [engine] -> render -> S3 PUT

Each image is a plain function in a thread of its own; the stages of different images overlap because downloads,
Pillow and OpenVINO all let go of the interpreter lock. The number of threads bounds the memory: so many decoded
pictures exist at most.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.backgrounds import Backgrounds
from worker.contract.errors import ImageError, ServiceError
from worker.contract.messages import MaskQuality, Outcome, OutcomeKind, OutputKind
from worker.contract.objects import ObjectStore, S3Url
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.render import render
from worker.images.subject import wanted
from worker.images.tensor import to_tensor
from worker.stages import Observe, Stage, nobody, timed
from worker.uptodate import MODEL, SOURCE_ETAG, standing

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
INTERNAL_ERROR = "internal_error"
"""Code of an outcome that none of our own errors explains: a defect of ours; the log has the traceback."""


class Network(Protocol):
    """What the pipeline needs of an engine."""

    @property
    def size(self) -> int:
        """Side of its square input in pixels."""
        ...

    def infer(self, tensor: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Mask u8 [size, size] of the u8 [1, size, size, 3] tensor; callable from several threads."""
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
    ) -> None:
        """Make `in_flight` threads, on whatever cores the process may use; `observe` learns where the time goes."""
        self._store, self._network, self._limits = store, network, limits
        self._network_digest, self._observe = network_digest, observe
        self._backgrounds = Backgrounds(store, limits)
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="image")

    def run(
        self,
        works: Sequence[Work],
        *,
        record: Callable[[Outcome], None],
        stop: Callable[[], bool] = lambda: False,
        metadata: Mapping[str, str] | None = None,
        skip_existing: bool = False,
    ) -> list[Outcome]:
        """Do all images; returns their outcomes in the order of completion.

        Args:
            works: the images.
            record: called in this thread for each outcome as it comes.
            stop: asked before each image starts; once true, no further image does.
            metadata: what every output carries beside the source's ETag and the model's digest.
            skip_existing: leave images alone whose outputs are up to date.

        Raises:
            ServiceError: a retryable one. Images without an outcome have not been recorded and may be run again.
        """
        outcomes: list[Outcome] = []
        trouble: list[BaseException] = []

        def one(work: Work) -> Outcome | None:
            if trouble or stop():
                return None
            try:
                return self._image(work, {MODEL: self._network_digest, **(metadata or {})}, skip_existing)
            except ServiceError as error:
                trouble.append(error)  # here, not by who waits: this thread's next image must see it
                return None

        futures: list[Future[Outcome | None]] = [self._threads.submit(one, work) for work in works]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                if outcome is not None:
                    record(outcome)
                    outcomes.append(outcome)
        except BaseException as error:
            trouble.append(error)
            wait(futures)  # nothing goes on behind the back of who is told that this chunk ended
            raise
        if trouble:
            raise trouble[0]
        return outcomes

    def close(self) -> None:
        """End the threads; images not yet started are dropped."""
        self._threads.shutdown(cancel_futures=True)

    def _image(self, work: Work, metadata: Mapping[str, str], skip_existing: bool) -> Outcome:
        started = time.monotonic()
        kind, quality = None, None
        try:
            if skip_existing:
                with self._timed(Stage.CHECK):
                    kind = standing(self._store, work.source, work.outputs.values(), metadata)
            if kind is None:
                quality = self._transform(work, metadata)
        except (ImageError, ServiceError) as error:
            if error.retryable:
                raise
            return _failed(work, error.code, str(error), started)
        except MemoryError:
            log.exception("image=%s event=out_of_memory", work.source)
            return _failed(work, "out_of_memory", "not enough memory for this image", started)
        except Exception as error:
            log.exception("image=%s event=internal_error", work.source)
            return _failed(work, INTERNAL_ERROR, f"{type(error).__name__}; the worker's log has details", started)
        return Outcome(
            index=work.index,
            key=work.key,
            kind=kind or OutcomeKind.OK,
            outputs=work.output_keys,
            seconds=time.monotonic() - started,
            quality=quality,
        )

    def _transform(self, work: Work, metadata: Mapping[str, str]) -> MaskQuality:
        background = self._backgrounds.of(work.options)
        with self._timed(Stage.FETCH):
            data, info = self._store.get(work.source, max_bytes=self._limits.max_object_mib * _MIB)
        with self._timed(Stage.DECODE):
            picture = decode(data, self._limits, wanted(work.options, self._network.size))
        del data
        with self._timed(Stage.PREPARE):
            tensor = to_tensor(picture, self._network.size)
        with self._timed(Stage.INFER):
            mask = self._network.infer(tensor)
        del tensor
        with self._timed(Stage.RENDER):
            quality, outputs = render(picture, mask, work.options, background)
        origin = {SOURCE_ETAG: info.etag, **metadata}
        with self._timed(Stage.STORE):
            for kind, content in outputs:
                content_type = work.options.format_of(kind).content_type
                self._store.put(work.outputs[kind], content, content_type=content_type, metadata=origin)
        return quality

    def _timed(self, stage: Stage) -> AbstractContextManager[None]:
        return timed(stage, self._observe)


def _failed(work: Work, code: str, message: str, started: float) -> Outcome:
    return Outcome(
        index=work.index,
        key=work.key,
        kind=OutcomeKind.FAILED,
        code=code,
        message=message,
        seconds=time.monotonic() - started,
    )
