"""The background picture of composites, fetched and decoded once per job instead of once per image."""

from __future__ import annotations

import threading
from dataclasses import replace

from worker.contract.errors import BackgroundUnusable, ImageError
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.contract.storage.s3 import ObjectStore
from worker.images.decode import DecodeTarget, Picture, decode

MAX_SIDE = 4096
"""Longest side in pixels of a cached background: 64 MiB in memory at most. Larger outputs get it enlarged."""

_MIB = 1024 * 1024


class BackgroundCache:
    """The background used last. Thread-safe: one thread fetches it while the others wait."""

    def __init__(self, store: ObjectStore, limits: LimitSettings) -> None:
        """Fetch nothing yet."""
        self._store, self._limits = store, limits
        self._lock = threading.Lock()
        self._name: tuple[str, str] | None = None
        self._picture: Picture | None = None

    def get(self, options: OutputOptions) -> Picture | None:
        """Return the background picture of a job; None if the background is a colour or no output shows one.

        Raises:
            BackgroundUnusable: the picture is missing, unreadable, or was replaced since the submission.
            ServiceError: S3 failed.
        """
        url = options.background_picture
        if url is None:
            return None
        with self._lock:
            if self._name != (url, options.background_etag):
                self._picture, self._name = None, None
                self._picture = self._fetch(url, options.background_etag)
                self._name = (url, options.background_etag)
            return self._picture

    def _fetch(self, url: str, etag: str) -> Picture:
        try:
            data, info = self._store.get(S3Url.parse(url), max_bytes=self._limits.max_object_mib * _MIB)
            picture = decode(data, self._limits, DecodeTarget(short_side=MAX_SIDE // 2, long_side=MAX_SIDE))
        except ImageError as error:
            raise BackgroundUnusable(f"background {url}: {error}") from error
        if etag and info.etag != etag:
            raise BackgroundUnusable(f"background {url} was replaced since the job was submitted; submit again")
        rgb = picture.rgb
        if max(rgb.size) > MAX_SIDE:
            rgb = rgb.copy()
            rgb.thumbnail((MAX_SIDE, MAX_SIDE))
        return replace(picture, rgb=rgb, alpha=None, full_size=None, box=None)
