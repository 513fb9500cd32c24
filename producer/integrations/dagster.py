"""Dagster: a resource whose `run` submits a job once, however often its step runs, and waits for it.

    @asset(partitions_def=days)
    def masks(context: AssetExecutionContext, maskmill: MaskmillResource) -> MaterializeResult:
        day = context.partition_key
        view = maskmill.run(context, f"s3://shop/photos/{day}/", f"s3://shop/masks/{day}/")
        return MaterializeResult(metadata=maskmill.metadata(view))

    Definitions(assets=[masks], resources={"maskmill": MaskmillResource()})

The job key is derived from the first run of a chain of re-executions, the step and its partition. So a retried step,
a run re-executed from failure and a run whose worker died all find the same job, and only images that are not done run
again. A new materialization is a new job, whose workers skip outputs that are up to date. Settings are those of the
command (`MASKMILL_...`) where the steps run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from producer.client import Client
from producer.integrations import orchestrator
from producer.watch import JobSnapshot
from worker.contract.errors import JobStateError
from worker.contract.job import JobView
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.spelling import did_you_mean

try:
    from dagster import ConfigurableResource, DagsterExecutionInterruptedError, Failure
except ImportError as error:
    raise ImportError("producer.integrations.dagster needs Dagster: pip install 'maskmill[dagster]'") from error


class MaskmillResource(ConfigurableResource):  # type: ignore[misc]  # Dagster is not installed where types are checked
    """One installation of maskmill."""

    poll_seconds: float = 2.0
    """Seconds between two reads of a job's state."""

    cancel_on_interrupt: bool = True
    """Cancel the job when the run is terminated; a run whose process dies does not cancel it."""

    def __init__(self, **fields: Any) -> None:
        """Take the fields; Dagster itself ignores a name that it does not know.

        Raises:
            TypeError: there is no such field.
        """
        known = type(self).model_fields
        for name in fields:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no field {name!r}{did_you_mean(name, known)}")
        super().__init__(**fields)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client, for calls other than `run`."""
        with Client() as client:
            yield client

    def run(
        self,
        context: Any,
        source: str | Path,
        dest: str,
        *,
        outputs: OutputOptions | Mapping[str, Any] | None = None,
        policy: JobPolicy | Mapping[str, Any] | None = None,
        keys: str | Sequence[str] | None = None,
        job_key: str = "",
        allow_failed: bool = False,
        timeout: float | None = None,
    ) -> JobView:
        """Submit images, or join the job of an earlier attempt, and wait until the job ends.

        Args:
            context: context of the op or asset.
            source: s3:// prefix, object or glob, or a folder on the step's machine, which is uploaded first.
            dest: s3:// prefix for the outputs.
            outputs: `OutputOptions`, or a mapping of its fields; None writes masks in PNG.
            policy: `JobPolicy`, or a mapping of its fields.
            keys: only these objects of the source.
            job_key: name of the job; empty derives it from the first run of the chain, the step and its partition.
            allow_failed: return even if images failed; the job must still finish.
            timeout: longest time to wait, in seconds; the job continues, and the next attempt joins it.

        Raises:
            Failure: images failed, or the job was cancelled or stopped by its error threshold.
            TimeoutError: the time-out expired.
            MaskmillError: the job could not be submitted.
        """
        with Client() as client:
            submitted = client.submit(
                source,
                dest,
                outputs=orchestrator.output_options(outputs),
                policy=orchestrator.job_policy(policy),
                keys=keys,
                job_key=job_key or _key(context),
            )
            view = orchestrator.retry_if_needed(
                client, submitted.view, joined=submitted.joined, allow_failed=allow_failed
            )
            context.log.info(f"job {view.job}: {view.total} images{', joined' if submitted.joined else ''}")
            view = self._wait(context, client, view.job, timeout)
        if reason := orchestrator.failure_reason(view, allow_failed=allow_failed):
            raise Failure(reason, metadata=self.metadata(view))
        return view

    def _wait(self, context: Any, client: Client, job: str, timeout: float | None) -> JobView:
        def on_progress(snapshot: JobSnapshot) -> None:
            context.log.debug(f"job {job}: {snapshot.view.done} of {snapshot.view.total} images")

        try:
            return client.wait(job, timeout=timeout, poll_seconds=self.poll_seconds, on_progress=on_progress)
        except DagsterExecutionInterruptedError:
            if self.cancel_on_interrupt:
                _cancel(client, job)
            raise

    def metadata(self, view: JobView) -> dict[str, Any]:
        """Return the metadata of a materialization: counts, source, destination, core-seconds."""
        return orchestrator.metadata(view)


def _key(context: Any) -> str:
    """Return the job key: equal for all attempts of a step, and unique to it."""
    step = context.op_execution_context if hasattr(context, "op_execution_context") else context
    first = step.run.root_run_id or step.get_tag("dagster/root_run_id") or step.run_id
    partition = f" {step.partition_key}" if step.has_partition_key else ""
    return f"dagster {first} {step.op_handle}{partition}"


def _cancel(client: Client, job: str) -> None:
    try:
        client.cancel(job, "its Dagster run was terminated")
    except JobStateError:
        return  # the job has ended: nothing to cancel
