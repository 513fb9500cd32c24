"""Show the progress of a job: a bar with rate and time left on a terminal, JSON lines anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from producer.watch import JobSnapshot
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.job import JobStatus, JobView

POLL_SECONDS = 0.5
"""Time between two reads of the job's state; short, so that its end is noticed at once."""

LINE_SECONDS = 5.0
"""Time between two lines if there is no bar."""


def shows_bar(*, as_json: bool) -> bool:
    """Return whether standard error is a terminal and may show live output."""
    return console.err.is_terminal and not as_json


def is_followed_by_lines(*, wait: bool) -> bool:
    """Return whether JSON lines follow the first output of a command, so that it must be one too."""
    return wait and not shows_bar(as_json=False)


Failures = Callable[[JobView], list[dict[str, str]]]
"""Returns the first failures of a job: kind, key, code and message of each."""


def show(snapshots: Iterable[JobSnapshot], *, as_json: bool, failures: Failures = lambda view: []) -> JobView:
    """Show snapshots as they come and return the view of the last one. The last JSON line says why images failed."""
    return _bar(snapshots) if shows_bar(as_json=as_json) else _lines(snapshots, failures)


class PhaseDisplay:
    """Shows the phase before a job exists: a live line on a terminal, a plain line every 5 s anywhere else."""

    def __init__(self, *, as_json: bool) -> None:
        self._live = console.err.status("listing") if shows_bar(as_json=as_json) else None
        self._printed_at = time.monotonic()
        self.total: int | None = None

    def update(self, phase: str, count: int) -> None:
        """Show a phase, such as `listed`, and its count so far."""
        text = f"{phase} {count:,}" + (f" of {self.total:,}" if self.total is not None else "")
        if self._live is not None:
            self._live.update(text)
        elif time.monotonic() - self._printed_at >= LINE_SECONDS:
            self._printed_at = time.monotonic()
            console.err.print(text)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Clear the live line while the block asks a question."""
        self.__exit__()
        yield
        self.__enter__()

    def __enter__(self) -> PhaseDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _lines(snapshots: Iterable[JobSnapshot], failures: Failures) -> JobView:
    snapshot: JobSnapshot | None = None
    printed, printed_at = snapshot, 0.0
    for snapshot in snapshots:
        if not snapshot.view.ended and (printed is None or time.monotonic() - printed_at >= LINE_SECONDS):
            printed, printed_at = snapshot, time.monotonic()
            console.print_json(snapshot.as_dict())
    if snapshot is not None and snapshot is not printed:
        view = snapshot.view
        why = {"failures_by_code": view.codes, "failures": failures(view)} if view.failed or view.dead else {}
        console.print_json(snapshot.as_dict() | why)
    return _last(snapshot.view if snapshot else None)


def _bar(snapshots: Iterable[JobSnapshot]) -> JobView:
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
        waiting = ""
        for snapshot in snapshots:
            view = snapshot.view
            if snapshot.waiting and snapshot.waiting != waiting:
                bar.console.print(snapshot.waiting, markup=False, soft_wrap=True)
            waiting = snapshot.waiting
            bar.update(
                task,
                description=_state(snapshot),
                total=view.total,
                completed=view.done,
                rate=f"{snapshot.rate:.1f} images/s" if snapshot.rate else "",
                left=f"{duration(snapshot.eta_seconds)} left" if snapshot.eta_seconds and not view.ended else "",
            )
    return _last(view)


def _last(view: JobView | None) -> JobView:
    if view is None:
        raise AssertionError("follow() yields at least one snapshot")
    return view


def _state(snapshot: JobSnapshot) -> str:
    view = snapshot.view
    if snapshot.waiting:
        return "waiting"
    if view.status is JobStatus.RUNNING and view.started_at is None:
        return "waiting for a worker"
    return view.status.value


def duration(seconds: float) -> str:
    """Return `1:02:03`, or `2:03` below one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def exit_code(view: JobView) -> Exit:
    """Return the exit code for a job after waiting for it."""
    if view.status is JobStatus.CANCELLED:
        return Exit.CANCELLED
    if view.status is JobStatus.STOPPED:
        return Exit.THRESHOLD
    if not view.ended:
        return Exit.TIMED_OUT
    return Exit.SOME_FAILED if view.failed or view.dead else Exit.OK
