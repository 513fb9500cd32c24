"""Apache Airflow 3: an operator that submits a job once, however often its task runs, and a trigger that waits.

    MaskmillOperator(
        task_id="masks",
        source="s3://shop/photos/{{ ds }}/",
        dest="s3://shop/masks/{{ ds }}/",
        outputs={"outputs": ["cutout"], "format": "webp"},
        deferrable=True,
    )

The job key is derived from the DAG, the task and its run. So the same job is found again when an Airflow worker dies,
a task is retried or a triggerer restarts. If the job ended with failures, a retry runs only the images that failed.
Settings are those of the command (`MASKMILL_...`) on Airflow's workers and triggerers; no secret enters Airflow's
database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from producer.client import Client
from producer.integrations import orchestrator
from worker.contract import settings
from worker.contract.errors import MaskmillError
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions

try:
    from airflow.sdk import BaseOperator
    from airflow.sdk.exceptions import AirflowException
    from airflow.triggers.base import BaseTrigger, TriggerEvent
except ImportError as error:
    raise ImportError(
        "producer.integrations.airflow needs Apache Airflow 3.1 or later: pip install 'maskmill[airflow]'"
    ) from error

log = logging.getLogger(__name__)


class JobTrigger(BaseTrigger):  # type: ignore[misc]  # Airflow is not installed where types are checked
    """Fires when a job has ended or cannot be read."""

    def __init__(self, job: str, poll_seconds: float = 5.0, cancel_on_kill: bool = True) -> None:
        """Create a trigger that any triggerer can run.

        Args:
            job: id of the job.
            poll_seconds: seconds between two reads of the job's state.
            cancel_on_kill: cancel the job if the waiting task is marked or cleared.
        """
        super().__init__()
        self.job, self.poll_seconds, self.cancel_on_kill = job, poll_seconds, cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the import path of the class, and its arguments."""
        kwargs = {"job": self.job, "poll_seconds": self.poll_seconds, "cancel_on_kill": self.cancel_on_kill}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: `job` and its `status`, or an `error`. If Redis cannot be reached, keep trying."""
        with Ledger(settings.load().redis, client_name="maskmill-airflow") as ledger:
            while True:
                try:
                    view = await asyncio.to_thread(ledger.view, self.job)
                except MaskmillError as error:
                    if not error.retryable:
                        yield TriggerEvent({"job": self.job, "error": str(error)})
                        return
                    log.warning(error, extra=event("status_unavailable", job=self.job))
                else:
                    if view.ended:
                        yield TriggerEvent({"job": self.job, "status": view.status.value})
                        return
                await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Cancel the job when the waiting task is ended by hand."""
        if self.cancel_on_kill:
            await asyncio.to_thread(_cancel, self.job)


class MaskmillOperator(BaseOperator):  # type: ignore[misc]
    """Submits images and succeeds when every image is done; returns facts about the job (XCom)."""

    template_fields: Sequence[str] = ("source", "dest", "keys", "job_key")
    ui_color = "#d9ead3"

    def __init__(
        self,
        *,
        source: str,
        dest: str,
        outputs: OutputOptions | Mapping[str, Any] | None = None,
        policy: JobPolicy | Mapping[str, Any] | None = None,
        keys: str | Sequence[str] | None = None,
        job_key: str = "",
        allow_failed: bool = False,
        deferrable: bool = False,
        poll_seconds: float = 5.0,
        timeout: timedelta | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        """Set what to submit and how to wait for it.

        Args:
            source: s3:// prefix, object or glob, or a folder on Airflow's worker, which is uploaded first.
            dest: s3:// prefix for the outputs.
            outputs: `OutputOptions`, or a mapping of its fields; None writes masks in PNG.
            policy: `JobPolicy`, or a mapping of its fields.
            keys: only these objects of the source.
            job_key: name of the job; empty derives it from DAG, task, run and map index. A cleared task joins its
                earlier job; to process all images again, set another key.
            allow_failed: succeed even if images failed; the job must still finish.
            deferrable: wait in the triggerer instead of a worker.
            poll_seconds: seconds between two reads of the job's state.
            timeout: longest time to wait; the job continues, and the next attempt joins it.
            cancel_on_kill: cancel the job when the task is ended. An Airflow worker that shuts down also ends its
                tasks; the next attempt then continues the job.
            **kwargs: arguments of every operator.
        """
        super().__init__(**kwargs)
        self.source, self.dest, self.keys, self.job_key = source, dest, keys, job_key
        self.outputs = orchestrator.output_options(outputs).model_dump(mode="json", exclude_defaults=True)
        self.policy = orchestrator.job_policy(policy).model_dump(mode="json", exclude_defaults=True)
        self.allow_failed, self.deferrable, self.cancel_on_kill = allow_failed, deferrable, cancel_on_kill
        self.poll_seconds, self.timeout = poll_seconds, timeout
        self._job = ""

    def execute(self, context: Any) -> dict[str, Any]:
        """Submit or join the job, wait for it, and return its facts."""
        with Client() as client:
            submitted = client.submit(
                self.source,
                self.dest,
                outputs=orchestrator.output_options(self.outputs),
                policy=orchestrator.job_policy(self.policy),
                keys=self.keys,
                job_key=self.job_key or _key(context["ti"]),
            )
            view = orchestrator.retry_if_needed(
                client, submitted.view, joined=submitted.joined, allow_failed=self.allow_failed
            )
            self._job = view.job
            self.log.info("job %s: %s images%s", view.job, view.total, ", joined" if submitted.joined else "")
            if not view.ended and self.deferrable:
                trigger = JobTrigger(view.job, self.poll_seconds, self.cancel_on_kill)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=self.timeout)
            if not view.ended:
                seconds = None if self.timeout is None else self.timeout.total_seconds()
                view = client.wait(view.job, timeout=seconds, poll_seconds=self.poll_seconds)
        return self._result(view)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the job's facts after the trigger has fired."""
        if "error" in event:
            raise AirflowException(event["error"])
        with Client() as client:
            return self._result(client.status(event["job"]))

    def on_kill(self) -> None:
        """Cancel the job when the task is ended while a worker waits for it."""
        if self.cancel_on_kill and self._job:
            _cancel(self._job)

    def _result(self, view: JobView) -> dict[str, Any]:
        if reason := orchestrator.failure_reason(view, allow_failed=self.allow_failed):
            raise AirflowException(reason)
        return orchestrator.metadata(view)


def _key(ti: Any) -> str:
    """Return the job key: equal for all attempts of a task instance, and unique to it."""
    index = getattr(ti, "map_index", -1)
    return f"airflow {ti.dag_id} {ti.task_id} {ti.run_id}" + (f" {index}" if index is not None and index >= 0 else "")


def _cancel(job: str) -> None:
    with Ledger(settings.load().redis, client_name="maskmill-airflow") as ledger:
        try:
            ledger.cancel(job, "its Airflow task was ended")
        except MaskmillError as error:  # the job has ended or is unknown: nothing to cancel
            log.warning(error, extra=event("cancel_failed", job=job))
