"""Keep the chosen items on the local disk between listing and submission.

A listing can be long, and standard input can be read only once; yet nothing may be uploaded, written or published
before the whole listing is checked and confirmed. Costs about 35 bytes per item on disk, and one block in memory.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator

from producer.sources.item import Item
from worker.contract.errors import SourceError

_BLOCK_ITEMS = 1000


class Spool:
    """Items in order. A context manager; its file has no name, so it disappears even if the process is killed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="maskmill-")  # noqa: SIM115 -- closed by `close`
        self._blocks: list[tuple[int, int]] = []
        self._open: list[Item] = []
        self._end = 0
        self._dropped = bytearray()
        self._drops = 0

    def add(self, item: Item) -> None:
        """Append one item.

        Raises:
            SourceError: the disk is full.
        """
        self._open.append(item)
        if len(self._open) == _BLOCK_ITEMS:
            self._flush()

    def drop(self, index: int) -> bool:
        """Remove the item that was added as number `index`; return False if it was removed before."""
        byte, bit = divmod(index, 8)
        if byte >= len(self._dropped):
            self._dropped.extend(bytes(byte + 1 - len(self._dropped)))
        if self._dropped[byte] >> bit & 1:
            return False
        self._dropped[byte] |= 1 << bit
        self._drops += 1
        return True

    def __len__(self) -> int:
        """Return the number of items that are not dropped."""
        return len(self._blocks) * _BLOCK_ITEMS + len(self._open) - self._drops

    def __iter__(self) -> Iterator[Item]:
        """Yield all items that are not dropped. Several iterators can be used at the same time."""
        for index, item in enumerate(self._all()):
            byte, bit = divmod(index, 8)
            if byte >= len(self._dropped) or not self._dropped[byte] >> bit & 1:
                yield item

    def item(self, index: int) -> Item:
        """Return the item that was added as number `index`."""
        number, position = divmod(index, _BLOCK_ITEMS)
        return self._block(number)[position] if number < len(self._blocks) else self._open[position]

    def close(self) -> None:
        """Release the disk space."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self) -> Iterator[Item]:
        for number in range(len(self._blocks)):
            yield from self._block(number)
        yield from self._open

    def _block(self, number: int) -> list[Item]:
        offset, length = self._blocks[number]
        return [Item(*row) for row in json.loads(zlib.decompress(os.pread(self._file.fileno(), length, offset)))]

    def _flush(self) -> None:
        body = zlib.compress(json.dumps(self._open, separators=(",", ":")).encode(), 1)
        try:
            self._file.write(body)
            self._file.flush()
        except OSError as error:
            raise SourceError(
                f"the list of images does not fit in {tempfile.gettempdir()} ({error.strerror}): "
                "set TMPDIR to a folder with more space"
            ) from error
        self._blocks.append((self._end, len(body)))
        self._end += len(body)
        self._open = []
