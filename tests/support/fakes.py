"""In-memory fakes of the object store, the network and the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from worker.contract.errors import ObjectMissing, TooLarge
from worker.contract.input_size import InputSize
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo


class FakeStore:
    """An object store with `get`, `head` and `put` over a dict of URL -> bytes."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})
        self.metadata: dict[str, Mapping[str, str]] = {}
        self.content_types: dict[str, str] = {}
        self.errors: dict[str, BaseException] = {}
        """URL -> the error that `get` and `put` raise for it."""
        self.head_errors: dict[str, BaseException] = {}
        self.got: list[str] = []
        self.before_get: Callable[[str], None] = lambda url: None

    def get(self, place: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        url = str(place)
        self.got.append(url)
        self.before_get(url)
        if error := self.errors.get(url):
            raise error
        if url not in self.objects:
            raise ObjectMissing(f"{url} does not exist")
        data = self.objects[url]
        if len(data) > max_bytes:
            raise TooLarge(f"{len(data)} bytes, the limit is {max_bytes}")
        return data, ObjectInfo(place.key, len(data), f"etag-of-{place.key}", {})

    def head(self, place: S3Url) -> ObjectInfo:
        url = str(place)
        if error := self.head_errors.get(url):
            raise error
        if url not in self.objects:
            raise ObjectMissing(f"{url} does not exist")
        return ObjectInfo(place.key, len(self.objects[url]), f"etag-of-{place.key}", self.metadata.get(url, {}))

    def put(self, place: S3Url, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None) -> None:
        url = str(place)
        if error := self.errors.get(url):
            raise error
        self.objects[url] = data
        self.content_types[url] = content_type
        self.metadata[url] = dict(metadata or {})


class FakeNetwork:
    """Finds a subject in the middle half of every picture, and counts calls and concurrent calls."""

    size = InputSize.square(32)

    def __init__(self, *, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._now = 0
        self.peak = 0
        self.calls = 0
        self.error: BaseException | None = None

    def infer(self, tensor: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        assert tensor.shape == (1, self.size.height, self.size.width, 3)
        assert tensor.dtype == np.uint8
        with self._lock:
            self.calls += 1
            self._now += 1
            self.peak = max(self.peak, self._now)
        try:
            time.sleep(self._seconds)
            if self.error is not None:
                raise self.error
        finally:
            with self._lock:
                self._now -= 1
        mask = np.zeros((self.size.height, self.size.width), np.uint8)
        mask[8:24, 8:24] = 255
        return mask


class Clock:
    """`monotonic`, `time` and `sleep` without waiting; replaces the `time` of a module through `monkeypatch`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert len(self.slept) < 1000, "endless loop of sleeps"
        self.slept.append(seconds)
        self.now += seconds
