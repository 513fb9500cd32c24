"""Find inputs that share an output, which must never happen, for any order of keys and any naming, in bounded memory.

Each output leaves a record of 24 bytes (digest of the output, digest of the key, number of the key) in one of 256
partitions by digest. The records of all partitions go to one unnamed file on disk, in blocks of 16 KiB. When the
listing has ended, the records are compared one partition at a time. Cost: 4 MiB of buffers; for ten million keys 240 MB
of disk, and about 10 MiB for the partition being compared. The same key twice is a duplicate, not a collision.

The digest of the output has 96 bits. By the birthday bound, the probability that any two of ten million different
outputs have the same digest is 1e-15.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator

from worker.contract.errors import SourceError

_RECORD = struct.Struct("=12s8sI")
_PARTITIONS = 256
_BLOCK_BYTES = 16 * 1024 // _RECORD.size * _RECORD.size


class CollisionCheck:
    """Takes every key with its outputs, then finds the outputs that appear twice. A context manager."""

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(_PARTITIONS)]
        self._offsets: list[list[int]] = [[] for _ in range(_PARTITIONS)]
        self._file = tempfile.TemporaryFile(prefix="maskmill-")  # noqa: SIM115 -- closed by `close`
        self._end = 0
        self._keys = 0

    def add(self, key: str, outputs: Iterable[str]) -> None:
        """Record the outputs that `key` writes. Keys are numbered from 0 in the order in which they are added.

        Raises:
            SourceError: the disk is full.
        """
        key_digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        for output in outputs:
            digest = hashlib.blake2b(output.encode(), digest_size=12).digest()
            buffer = self._buffers[digest[0]]
            buffer += _RECORD.pack(digest, key_digest, self._keys)
            if len(buffer) >= _BLOCK_BYTES:
                self._spill(digest[0])
        self._keys += 1

    def found(self) -> Iterator[tuple[int, int, bool]]:
        """Yield, for every output of an earlier key, the earlier number, the later one, and whether the keys match."""
        for partition in range(_PARTITIONS):
            seen: dict[bytes, tuple[bytes, int]] = {}
            for output, key, number in self._records(partition):
                first_key, first_number = seen.setdefault(output, (key, number))
                if first_number != number:
                    yield first_number, number, first_key == key

    def close(self) -> None:
        """Release the disk space."""
        self._file.close()

    def __enter__(self) -> CollisionCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spill(self, partition: int) -> None:
        try:
            self._file.write(self._buffers[partition])
        except OSError as error:
            raise SourceError(
                f"no space left in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a folder with more space"
            ) from error
        self._offsets[partition].append(self._end)
        self._end += len(self._buffers[partition])
        self._buffers[partition].clear()

    def _records(self, partition: int) -> Iterator[tuple[bytes, bytes, int]]:
        self._file.flush()
        for offset in self._offsets[partition]:
            yield from _RECORD.iter_unpack(os.pread(self._file.fileno(), _BLOCK_BYTES, offset))
        yield from _RECORD.iter_unpack(bytes(self._buffers[partition]))
