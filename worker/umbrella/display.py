"""Progress of `maskmill cut`: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import time
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from worker.contract import console
from worker.umbrella.totals import Totals

_LINE_SECONDS = 5.0
_RATE_IMAGES = 3
"""Pictures before a rate is shown: the first one includes the start of the workers."""


class Display:
    """Shows the numbers of a run. A context manager."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        if console.err.is_terminal:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=console.err, transient=True)
            self._task = self._bar.add_task("preparing", total=None)
        self._shown: str = ""
        self._shown_at = time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, totals: Totals) -> None:
        """Show the numbers, on a terminal at once."""
        text = self._words(totals)
        if self._bar is not None:
            self._bar.update(self._task, description=text, total=totals.planned, completed=totals.done)
            return
        due = time.monotonic() - self._shown_at >= _LINE_SECONDS
        if totals.done and text != self._shown and (due or not self._shown):
            self.say(text)
            self._shown, self._shown_at = text, time.monotonic()

    def say(self, text: str) -> None:
        """Print one line on standard error, above the bar."""
        console.err.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Remove the bar, before a result is printed."""
        if self._bar is not None:
            self._bar.stop()

    def _words(self, totals: Totals) -> str:
        if not totals.done:
            return f"{totals.planned:,} to do, waiting for the first one"
        now = time.monotonic()
        self._first = self._first or (now, totals.done)
        seconds, images = now - self._first[0], totals.done - self._first[1]
        rate = images / seconds if images >= _RATE_IMAGES else None
        parts = [f"{totals.done:,} of {totals.planned:,} done"]
        if totals.failures:
            parts.append(f"{len(totals.failures):,} failed")
        if totals.done >= totals.planned:
            return ", ".join(parts)
        if rate:
            parts += [f"{rate:.1f} pictures/s", f"{(totals.planned - totals.done) / rate:.0f} s left"]
        return ", ".join(parts)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
