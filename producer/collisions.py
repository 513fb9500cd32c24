"""Two inputs must never share an output: found for any order of keys and any naming, in bounded memory.

Each output leaves a record of 24 bytes (digest of the output, digest of the key, its number) in one of 256 partitions
by digest. A partition's records go to one unnamed file on disk, 16 KiB at a time, and are compared one partition after
the other when the listing has ended: 4 MiB of buffers, and at ten million keys 240 MB of disk and about 10 MiB for the
partition being compared. The same key twice is no collision but a duplicate.

The digest of the output has 96 bits: by the birthday bound, two of ten million differing outputs agree with a
probability of 1e-15.
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
    """Feed it every key, then ask."""

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(_PARTITIONS)]
        self._offsets: list[list[int]] = [[] for _ in range(_PARTITIONS)]
        self._file = tempfile.TemporaryFile(prefix="maskmill-")  # noqa: SIM115 -- closed by `close`
        self._end = 0
        self._keys = 0

    def add(self, key: str, outputs: Iterable[str]) -> None:
        """Note that `key` writes these.

        Raises:
            SourceError: the disk is full.
        """
        owner = hashlib.blake2b(key.encode(), digest_size=8).digest()
        for output in outputs:
            wanted = hashlib.blake2b(output.encode(), digest_size=12).digest()
            buffer = self._buffers[wanted[0]]
            buffer += _RECORD.pack(wanted, owner, self._keys)
            if len(buffer) >= _BLOCK_BYTES:
                self._spill(wanted[0])
        self._keys += 1

    def found(self) -> Iterator[tuple[int, int, bool]]:
        """Every output that an earlier key has: that key's number, the later one's, and whether the keys are equal."""
        for number in range(_PARTITIONS):
            seen: dict[bytes, tuple[bytes, int]] = {}
            for wanted, key, index in self._records(number):
                first = seen.setdefault(wanted, (key, index))
                if first[1] != index:
                    yield first[1], index, first[0] == key

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def __enter__(self) -> CollisionCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spill(self, number: int) -> None:
        try:
            self._file.write(self._buffers[number])
        except OSError as error:
            raise SourceError(
                f"no room in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a folder with more"
            ) from error
        self._offsets[number].append(self._end)
        self._end += len(self._buffers[number])
        self._buffers[number].clear()

    def _records(self, number: int) -> Iterator[tuple[bytes, bytes, int]]:
        self._file.flush()
        for offset in self._offsets[number]:
            yield from _RECORD.iter_unpack(os.pread(self._file.fileno(), _BLOCK_BYTES, offset))
        yield from _RECORD.iter_unpack(bytes(self._buffers[number]))
