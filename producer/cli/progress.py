"""Progress of a job: a bar with rate and time left on a terminal, one JSON line per interval anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from producer.watch import Sample
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.job import JobStatus, JobView

SAMPLE_SECONDS = 0.5
"""Between two looks at the job, so that its end is noticed at once."""

LINE_SECONDS = 5.0
"""Between two lines where there is no bar."""


def shows_bar(*, as_json: bool) -> bool:
    """A person is looking."""
    return console.err.is_terminal and not as_json


def show(samples: Iterable[Sample], *, as_json: bool) -> JobView:
    """Show samples until they end; returns the last view."""
    return _bar(samples) if shows_bar(as_json=as_json) else _lines(samples)


class Teller:
    """What goes on before there is a job: a live line on a terminal, a plain line now and then anywhere else."""

    def __init__(self, *, as_json: bool) -> None:
        self._live = console.err.status("listing") if shows_bar(as_json=as_json) else None
        self._told_at = time.monotonic()
        self.total: int | None = None

    def tell(self, phase: str, count: int) -> None:
        """Called with every step."""
        text = f"{phase} {count:,}" + (f" of {self.total:,}" if self.total is not None else "")
        if self._live is not None:
            self._live.update(text)
        elif time.monotonic() - self._told_at >= LINE_SECONDS:
            self._told_at = time.monotonic()
            console.err.print(text)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Stay off the terminal, for a question."""
        self.__exit__()
        yield
        self.__enter__()

    def __enter__(self) -> Teller:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _lines(samples: Iterable[Sample]) -> JobView:
    sample: Sample | None = None
    printed, printed_at = sample, 0.0
    for sample in samples:
        if printed is None or time.monotonic() - printed_at >= LINE_SECONDS:
            printed, printed_at = sample, time.monotonic()
            console.print_json(sample.as_dict())
    if sample is not None and sample is not printed:
        console.print_json(sample.as_dict())
    return _last(sample.view if sample else None)


def _bar(samples: Iterable[Sample]) -> JobView:
    view: JobView | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console.err) as bar:
        task = bar.add_task("waiting for a worker", rate="", left="")
        for sample in samples:
            view = sample.view
            bar.update(
                task,
                description=_state(view),
                total=view.total,
                completed=view.done,
                rate=f"{sample.rate:.1f} images/s" if sample.rate else "",
                left=f"{duration(sample.eta_seconds)} left" if sample.eta_seconds and not view.ended else "",
            )
    return _last(view)


def _last(view: JobView | None) -> JobView:
    if view is None:
        raise AssertionError("follow() yields at least one sample")
    return view


def _state(view: JobView) -> str:
    if view.status is JobStatus.RUNNING and view.started_at is None:
        return "waiting for a worker"
    return view.status.value


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`, minutes and seconds at least."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def exit_code(view: JobView) -> Exit:
    """What the shell learns about a job that was waited for."""
    if view.status is JobStatus.CANCELLED:
        return Exit.CANCELLED
    if view.status is JobStatus.STOPPED:
        return Exit.THRESHOLD
    if not view.ended:
        return Exit.TIMED_OUT
    return Exit.SOME_FAILED if view.failed or view.dead else Exit.OK
