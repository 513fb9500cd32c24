"""Two inputs must never share an output: found while listing, in constant memory.

`a.jpg` and `a.png` both want `a.png`. Such rivals share everything up to the first dot of their name, and a sorted
listing brings all keys of one such beginning together (sub-folders included, hence the stack). So only the outputs
of the beginnings now open need to be remembered, not those of the whole bucket.
"""

from __future__ import annotations

from worker.contract.errors import OutputCollision


class CollisionCheck:
    """Feed it every key in listing order."""

    def __init__(self) -> None:
        self._open: list[tuple[str, dict[str, str]]] = []

    def add(self, key: str, output: str) -> None:
        """Note that `key` writes `output`.

        Raises:
            OutputCollision: another key writes it too.
        """
        folder, slash, name = key.rpartition("/")
        beginning = f"{folder}{slash}{name.partition('.')[0]}."
        while self._open and not beginning.startswith(self._open[-1][0]):
            self._open.pop()
        if not self._open or self._open[-1][0] != beginning:
            self._open.append((beginning, {}))
        outputs = self._open[-1][1]
        if output in outputs:
            raise OutputCollision(
                f"{outputs[output]!r} and {key!r} would both be written to {output!r}: rename one, or submit them apart"
            )
        outputs[output] = key
