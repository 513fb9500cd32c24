"""Functions shared by the Airflow operator and the Dagster resource: arguments, retries and the result of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.client import Client
from worker.contract.errors import SettingsError
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions

_EXAMPLES = {"outputs": '{"outputs": ["cutout"], "format": "webp"}', "policy": '{"priority": "high"}'}


def output_options(given: OutputOptions | Mapping[str, Any] | None) -> OutputOptions:
    """Return the `OutputOptions` that a pipeline gives as such or as a mapping of field to value.

    Raises:
        ValueError: a field is unknown, a value is invalid, or the options contradict each other.
        SettingsError: the value is no mapping.
    """
    return given if isinstance(given, OutputOptions) else OutputOptions.model_validate(_fields("outputs", given))


def job_policy(given: JobPolicy | Mapping[str, Any] | None) -> JobPolicy:
    """Return the `JobPolicy` that a pipeline gives as such or as a mapping of field to value.

    Raises:
        ValueError: a field is unknown, or a value is invalid.
        SettingsError: the value is no mapping.
    """
    return given if isinstance(given, JobPolicy) else JobPolicy.model_validate(_fields("policy", given))


def _fields(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise SettingsError(f"{name} takes a mapping of fields, such as {_EXAMPLES[name]}, not {given!r:.80}")
    return {**(given or {})}


def failure_reason(view: JobView, *, allow_failed: bool = False) -> str:
    """Return why an ended job did not succeed; empty if it did.

    A job succeeds if it finished and no image failed. With `allow_failed`, images may fail.
    """
    if view.status is not JobStatus.FINISHED:
        return f"job {view.job} was {view.status.value}: {view.reason or 'no reason given'}; {_counts(view)}"
    if (view.failed or view.dead) and not allow_failed:
        codes = ", ".join(f"{count:,} {code}" for code, count in sorted(view.codes.items()))
        return (
            f"{view.failed + view.dead:,} of {view.total or 0:,} images of job {view.job} failed ({codes}): "
            f"see `producer status {view.job}`"
        )
    return ""


def retry_if_needed(client: Client, view: JobView, *, joined: bool, allow_failed: bool) -> JobView:
    """Retry the unfinished images of a joined job that ended without success; return the job.

    A second attempt at a task therefore runs only the images that the first attempt did not finish.
    """
    needed = joined and view.ended and failure_reason(view, allow_failed=allow_failed)
    return client.retry(view.job, failed=not allow_failed) if needed else view


def metadata(view: JobView) -> dict[str, Any]:
    """Return facts about the job for later steps and for the orchestrator's user interface, as plain values."""
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
