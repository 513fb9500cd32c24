"""How an orchestrator takes the end of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.client import Client
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions


def options(given: OutputOptions | Mapping[str, Any] | None) -> OutputOptions:
    """Options as a pipeline has them: ours, or plain values.

    Raises:
        ValueError: they contradict each other.
    """
    return given if isinstance(given, OutputOptions) else OutputOptions.model_validate({**(given or {})})


def policy(given: JobPolicy | Mapping[str, Any] | None) -> JobPolicy:
    """The same for how a job is run."""
    return given if isinstance(given, JobPolicy) else JobPolicy.model_validate({**(given or {})})


def trouble(view: JobView, *, allow_failed: bool = False) -> str:
    """Why an ended job is no success, in words; empty when every image is done, or as good as may be."""
    if view.status is not JobStatus.FINISHED:
        return f"job {view.job} was {view.status.value}: {view.reason or 'no reason was given'}; {_counts(view)}"
    if (view.failed or view.dead) and not allow_failed:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(view.codes.items()))
        return (
            f"{view.failed + view.dead:,} of {view.total or 0:,} images of job {view.job} failed ({codes}): "
            f"`producer status {view.job}` names them"
        )
    return ""


def taken_up(client: Client, view: JobView, *, joined: bool, allow_failed: bool) -> JobView:
    """A job that was submitted, or one of an earlier try that is joined: then what is not done is run again.

    So a second try pays for what the first left undone and for nothing else.
    """
    again = joined and view.ended and trouble(view, allow_failed=allow_failed)
    return client.retry(view.job, failed=not allow_failed) if again else view


def facts(view: JobView) -> dict[str, Any]:
    """What later steps and people want to know; plain values."""
    return {
        "job": view.job,
        "status": view.status.value,
        "source": str(view.options.source),
        "dest": str(view.options.dest),
        "total": view.total or 0,
        "ok": view.ok,
        "skipped": view.skipped,
        "failed": view.failed,
        "dead": view.dead,
        "cancelled": view.cancelled,
        "core_seconds": round(view.core_seconds, 3),
    }


def _counts(view: JobView) -> str:
    return f"{view.ok + view.skipped:,} of {view.total or 0:,} images are done"
