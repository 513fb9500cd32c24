"""Apache Airflow 3: an operator that submits a job once, however often its task is run, and a trigger that waits.

    MaskmillOperator(
        task_id="masks",
        source="s3://shop/photos/{{ ds }}/",
        dest="s3://shop/masks/{{ ds }}/",
        outputs={"outputs": ["cutout"], "format": "webp"},
        deferrable=True,
    )

The job key is made of the DAG, the task and its run. A worker of Airflow that dies, a task that is retried, a triggerer
that is restarted: all of them find the job that is there. A retry of a job that ended with failures runs those images
again and no others. Settings are those of the command (`MASKMILL_...`), on Airflow's workers and triggerers; no secret
goes through Airflow's database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from producer.client import Client
from producer.integrations import ending
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


class JobTrigger(BaseTrigger):  # type: ignore[misc]  # Airflow is not there where types are checked
    """Fires when a job has ended, or cannot be found."""

    def __init__(self, job: str, poll_seconds: float = 5.0, cancel_on_kill: bool = True) -> None:
        """What is needed to look at the job from any triggerer.

        Args:
            job: its id.
            poll_seconds: between two looks.
            cancel_on_kill: cancel the job when somebody marks or clears the task that waits for it.
        """
        super().__init__()
        self.job, self.poll_seconds, self.cancel_on_kill = job, poll_seconds, cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Place of the class, and its arguments."""
        kwargs = {"job": self.job, "poll_seconds": self.poll_seconds, "cancel_on_kill": self.cancel_on_kill}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: `job` and its `status`, or an `error`. A Redis that is away is waited for."""
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
        """Somebody gave the task up."""
        if self.cancel_on_kill:
            await asyncio.to_thread(_cancel, self.job)


class MaskmillOperator(BaseOperator):  # type: ignore[misc]
    """Submits images and succeeds when every one of them is done; returns the job's facts (XCom)."""

    template_fields: Sequence[str] = ("source", "dest", "keys", "job_key")
    ui_color = "#d9ead3"

    def __init__(
        self,
        *,
        source: str,
        dest: str,
        outputs: OutputOptions | Mapping[str, Any] | None = None,
        policy: JobPolicy | Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
        job_key: str = "",
        allow_failed: bool = False,
        deferrable: bool = False,
        poll_seconds: float = 5.0,
        timeout: timedelta | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        """What to submit, and how to wait for it.

        Args:
            source: s3:// prefix, object or glob, or a folder that Airflow's worker sees (uploaded first).
            dest: s3:// prefix that outputs go under.
            outputs: fields of `OutputOptions`, or one; None: masks in PNG.
            policy: fields of `JobPolicy`, or one.
            keys: only these objects of the source.
            job_key: names the job; empty: DAG, task, run and map index. A task that is cleared joins the job it had:
                to have everything done anew, give a key of your own.
            allow_failed: succeed although images failed; the job must have come to its end all the same.
            deferrable: wait in the triggerer instead of a worker.
            poll_seconds: between two looks at the job.
            timeout: to wait at most; the job goes on, and the next try joins it.
            cancel_on_kill: cancel the job when the task is ended. A worker of Airflow that is told to stop ends its
                tasks too; the next try takes the job up where it was.
            **kwargs: of every operator.
        """
        super().__init__(**kwargs)
        self.source, self.dest, self.keys, self.job_key = source, dest, keys, job_key
        self.outputs = ending.options(outputs).model_dump(mode="json", exclude_defaults=True)
        self.policy = ending.policy(policy).model_dump(mode="json", exclude_defaults=True)
        self.allow_failed, self.deferrable, self.cancel_on_kill = allow_failed, deferrable, cancel_on_kill
        self.poll_seconds, self.timeout = poll_seconds, timeout
        self._job = ""

    def execute(self, context: Any) -> dict[str, Any]:
        """Submit or join, then wait."""
        with Client() as client:
            submitted = client.submit(
                self.source,
                self.dest,
                outputs=ending.options(self.outputs),
                policy=ending.policy(self.policy),
                keys=self.keys,
                job_key=self.job_key or _key(context["ti"]),
            )
            view = ending.taken_up(client, submitted.view, joined=submitted.joined, allow_failed=self.allow_failed)
            self._job = view.job
            self.log.info("job %s: %s images%s", view.job, view.total, ", joined" if submitted.joined else "")
            if not view.ended and self.deferrable:
                trigger = JobTrigger(view.job, self.poll_seconds, self.cancel_on_kill)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=self.timeout)
            if not view.ended:
                seconds = None if self.timeout is None else self.timeout.total_seconds()
                view = client.wait(view.job, timeout=seconds, poll_seconds=self.poll_seconds)
        return self._judged(view)

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on when the trigger has fired."""
        if "error" in event:
            raise AirflowException(event["error"])
        with Client() as client:
            return self._judged(client.status(event["job"]))

    def on_kill(self) -> None:
        """Somebody ended the task while a worker was waiting."""
        if self.cancel_on_kill and self._job:
            _cancel(self._job)

    def _judged(self, view: JobView) -> dict[str, Any]:
        if why := ending.trouble(view, allow_failed=self.allow_failed):
            raise AirflowException(why)
        return ending.facts(view)


def _key(ti: Any) -> str:
    """The same for every try of a task instance, and for no other."""
    index = getattr(ti, "map_index", -1)
    return f"airflow {ti.dag_id} {ti.task_id} {ti.run_id}" + (f" {index}" if index is not None and index >= 0 else "")


def _cancel(job: str) -> None:
    with Ledger(settings.load().redis, client_name="maskmill-airflow") as ledger:
        try:
            ledger.cancel(job, "its Airflow task was ended")
        except MaskmillError as error:  # it has ended, or is not known: nothing is left to stop
            log.warning(error, extra=event("cancel_failed", job=job))
