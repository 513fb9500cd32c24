"""Parse sizes, times and shares as people type them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.contract.errors import SettingsError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}

MAX_SAMPLE = 1_000_000
"""Images. A sample of a fixed number is held in memory until the listing ends; a share is not."""


@dataclass(frozen=True)
class SampleSize:
    """How much of a listing to take: a number of images or a share of them. Exactly one of the two is set."""

    count: int | None = None
    share: float | None = None
    """Above 0, at most 1."""

    def check(self) -> None:
        """Check the range.

        Raises:
            SettingsError: it is out of range.
        """
        if self.share is not None and not 0 < self.share <= 1:
            raise SettingsError(f"a sample of {self.share:%} is out of range: give a share above 0% and at most 100%")
        if self.count is not None and not 0 < self.count <= MAX_SAMPLE:
            raise SettingsError(
                f"a sample of {self.count} is out of range: give 1 to {MAX_SAMPLE:,} images, or a share such as 5%"
            )


def texts(name: str, given: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """Return several texts; one text or path is taken as one, not as its characters.

    Args:
        name: of the argument, for messages.
        given: by the program.

    Raises:
        SettingsError: an item is neither a text nor a path.
    """
    items: tuple[Any, ...] = (given,) if isinstance(given, str | Path) or not isinstance(given, Iterable) else (*given,)
    for item in items:
        if not isinstance(item, str | Path):
            raise SettingsError(f"{name} takes texts, not {item!r:.80}")
    return tuple(map(str, items))


def number(name: str, given: Any, *, least: float, most: float = math.inf, whole: bool = False) -> float:
    """Return a number that a program gave, after a check that it is one within a range, and finite.

    Args:
        name: of the argument, for messages.
        given: by the program.
        least: smallest value.
        most: largest value.
        whole: whether it must be an integer.

    Raises:
        SettingsError: it is none, or out of range.
    """
    kind = int if whole else (int, float)
    if isinstance(given, bool) or not isinstance(given, kind) or not least <= given <= most or given == math.inf:
        span = f"from {least:g}" if most == math.inf else f"from {least:g} to {most:,.0f}"
        raise SettingsError(f"{name} takes a {'whole' if whole else 'finite'} number {span}, not {given!r:.80}")
    return given


def parse_size(text: str) -> int:
    """Return bytes: `500`, `10k`, `1M` and `1.5GiB` use powers of 1024, `10MB` powers of 1000, as in coreutils.

    Raises:
        SettingsError: `text` is not a size.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise SettingsError(f"{text!r} is not a size: write 500k, 1M, 10MiB (powers of 1024) or 10MB (of 1000)")
    number, unit, suffix = found.groups()
    base = 1000 if (suffix or "").lower() == "b" else 1024
    size = float(number) * base ** (_POWERS[unit.lower()] if unit else 0)
    if not math.isfinite(size):
        raise SettingsError(f"a size of {text:.20}... is out of range")
    return int(size)


def parse_time(text: str, *, now: float | None = None) -> float:
    """Return Unix seconds of an ISO date (UTC by default) or of an age such as `36h`, `7d` or `2w`.

    Args:
        text: as typed.
        now: Unix seconds that an age counts from; None: the present.

    Raises:
        SettingsError: `text` is neither.
    """
    text = text.strip()
    if found := _AGE.fullmatch(text):
        moment = (time.time() if now is None else now) - float(found[1]) * _SECONDS[found[2]]
        if not math.isfinite(moment):
            raise SettingsError(f"an age of {text:.20}... is out of range")
        return moment
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{text!r} is neither a date nor an age: write 2026-01-31, 2026-01-31T12:00+02:00, 36h, 7d or 2w"
        ) from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def parse_sample(text: str) -> SampleSize:
    """Read `500` (images) or `2.5%` (of the images).

    Raises:
        SettingsError: `text` is neither, or out of range.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        sample = SampleSize(share=float(number) / 100) if percent else SampleSize(count=int(number))
    except ValueError as error:
        raise SettingsError(f"{text!r} is not a sample: write a number such as 500, or a share such as 1%") from error
    sample.check()
    return sample
