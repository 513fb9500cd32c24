"""Remember facts of jobs between looks at them, although a look may reach a part of the jobs only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

_T = TypeVar("_T")

_MOST = 50_000
"""Names remembered in a round: a few MB. What depends on time waits for the jobs beyond, until there are fewer."""


class RoundMemory(Generic[_T]):
    """Values by name; one that was not kept for a whole round of looks (`Backlog.ends_round`) is forgotten."""

    def __init__(self, most: int = _MOST) -> None:
        """Remember nothing yet, and later `most` names of a round."""
        self._most = most
        self._before: dict[str, _T] = {}
        self._now: dict[str, _T] = {}

    def get(self, name: str) -> _T | None:
        """Return the value of a name; None without one."""
        return self._now.get(name, self._before.get(name))

    def values(self) -> dict[str, _T]:
        """Return a copy of all values by name."""
        return self._before | self._now

    def keep(self, values: Mapping[str, _T], *, ends_round: bool) -> None:
        """Remember values for the rest of this round of looks, and for the next round.

        Args:
            values: by name; they replace earlier ones.
            ends_round: whether this look was the last one of its round.
        """
        for name, value in values.items():
            if name in self._now or len(self._now) < self._most:
                self._now[name] = value
        if ends_round:
            self._before, self._now = self._now, {}
