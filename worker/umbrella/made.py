"""What was made from which picture: so that a second run does only what is new or changed, without any service.

One file of JSON lines for each pair of source and destination, in the folder of the services. A line is added when the
outputs of a picture are complete in the destination; the last line of a picture counts. A picture is up to date if its
size, its time of change and the recipe (options and network) are those of its line, and all its outputs exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import IO, Self

from producer.sources.item import Item
from worker.contract.errors import SourceError
from worker.contract.outputs import OutputOptions

_SPARE_LINES = 1000
"""Lines beyond twice the number of pictures after which the file is written anew."""

Mark = tuple[int | None, float | None, str]
"""Size in bytes, time of change in Unix seconds, recipe."""


class MadeRecord:
    """The record of one pair of source and destination. A context manager: it keeps its file open."""

    def __init__(self, folder: Path, source: Path, dest: Path) -> None:
        """Read the record. A line that was cut off by a crash is ignored: its picture is made again.

        Raises:
            SourceError: the record cannot be read or written.
        """
        digest = hashlib.blake2b(os.fsencode(source) + b"\0" + os.fsencode(dest), digest_size=8).hexdigest()
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', dest.name)[:40]}-{digest}.jsonl"
        self._marks: dict[str, Mark] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = self._read()
            if lines > 2 * len(self._marks) + _SPARE_LINES:
                self._rewrite()
            self._file: IO[str] = self.path.open("a", encoding="utf-8")
        except OSError as error:
            remedy = "set XDG_CACHE_HOME to a folder that you can write"
            raise SourceError(f"{self.path} cannot be written: {error.strerror}; {remedy}") from error
        if lines:
            self._file.write("\n")  # ends a line that was cut off

    def is_up_to_date(self, item: Item, recipe: str, dest: Path, options: OutputOptions) -> bool:
        """Return whether all outputs of a picture were made from it as it is now, and are still there."""
        if self._marks.get(item.key) != (item.size, item.modified, recipe):
            return False
        return all((dest / options.output_key(item.key, kind)).is_file() for kind in options.outputs)

    def add(self, item: Item, recipe: str) -> None:
        """Record that all outputs of a picture are complete in the destination."""
        mark = (item.size, item.modified, recipe)
        self._marks[item.key] = mark
        self._file.write(_line(item.key, mark))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> int:
        count = 0
        if self.path.exists():
            with self.path.open("rb") as lines:
                for count, line in enumerate(lines, 1):  # noqa: B007 -- the count is returned
                    try:
                        key, *mark = json.loads(line)
                        size, modified, recipe = mark
                        self._marks[str(key)] = (size, modified, recipe)
                    except (ValueError, TypeError):
                        continue
        return count

    def _rewrite(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text("".join(_line(key, mark) for key, mark in self._marks.items()), encoding="utf-8")
        part.replace(self.path)


def _line(key: str, mark: Mark) -> str:
    return json.dumps([key, *mark], ensure_ascii=False) + "\n"
