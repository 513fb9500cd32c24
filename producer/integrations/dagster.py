"""Dagster: a resource whose `run` submits a job once, however often its step is run, and waits for it.

    @asset(partitions_def=days)
    def masks(context: AssetExecutionContext, maskmill: MaskmillResource) -> MaterializeResult:
        day = context.partition_key
        view = maskmill.run(context, f"s3://shop/photos/{day}/", f"s3://shop/masks/{day}/")
        return MaterializeResult(metadata=maskmill.metadata(view))

    Definitions(assets=[masks], resources={"maskmill": MaskmillResource()})

The job key is made of the first run of a chain of re-executions, the step and its partition, so a retried step, a run
that is started again from its failure and a worker that died all find the job that is there, and only images that are
not done are run again. A new materialization is a new job, whose workers skip what is up to date. Settings are those
of the command (`MASKMILL_...`), where the steps run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from producer.client import Client
from producer.integrations import ending
from producer.watch import Sample
from worker.contract.errors import JobStateError
from worker.contract.job import JobView
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions

try:
    from dagster import ConfigurableResource, DagsterExecutionInterruptedError, Failure
except ImportError as error:
    raise ImportError("producer.integrations.dagster needs Dagster: pip install 'maskmill[dagster]'") from error


class MaskmillResource(ConfigurableResource):  # type: ignore[misc]  # Dagster is not there where types are checked
    """One installation of maskmill."""

    poll_seconds: float = 2.0
    """Between two looks at a job."""

    cancel_on_interrupt: bool = True
    """Cancel the job when the run is terminated. Not when its process dies."""

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The Python API, for all that `run` does not do."""
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
        keys: Sequence[str] | None = None,
        job_key: str = "",
        allow_failed: bool = False,
        timeout: float | None = None,
    ) -> JobView:
        """Submit images or join the job of an earlier try, and stay until every one of them is done.

        Args:
            context: of the op or asset.
            source: s3:// prefix, object or glob, or a folder that the step sees (uploaded first).
            dest: s3:// prefix that outputs go under.
            outputs: fields of `OutputOptions`, or one; None: masks in PNG.
            policy: fields of `JobPolicy`, or one.
            keys: only these objects of the source.
            job_key: names the job; empty: first run of the chain, step and partition.
            allow_failed: return although images failed; the job must have come to its end all the same.
            timeout: seconds to wait at most; the job goes on, and the next try joins it.

        Raises:
            Failure: images failed, or the job was cancelled or stopped by its error threshold.
            TimeoutError: time is up.
            MaskmillError: it could not be submitted.
        """

        def told(sample: Sample) -> None:
            context.log.debug(f"job {sample.view.job}: {sample.view.done} of {sample.view.total} images")

        with Client() as client:
            submitted = client.submit(
                source,
                dest,
                outputs=ending.options(outputs),
                policy=ending.policy(policy),
                keys=keys,
                job_key=job_key or _key(context),
            )
            view = ending.taken_up(client, submitted.view, joined=submitted.joined, allow_failed=allow_failed)
            context.log.info(f"job {view.job}: {view.total} images{', joined' if submitted.joined else ''}")
            try:
                view = client.wait(view.job, timeout=timeout, poll_seconds=self.poll_seconds, told=told)
            except DagsterExecutionInterruptedError:
                if self.cancel_on_interrupt:
                    _cancel(client, view.job)
                raise
        if why := ending.trouble(view, allow_failed=allow_failed):
            raise Failure(why, metadata=self.metadata(view))
        return view

    def metadata(self, view: JobView) -> dict[str, Any]:
        """Of a materialization: counts, places, core-seconds."""
        return ending.facts(view)


def _key(context: Any) -> str:
    """The same for every try of a step, and for no other."""
    step = context.op_execution_context if hasattr(context, "op_execution_context") else context
    first = step.run.root_run_id or step.get_tag("dagster/root_run_id") or step.run_id
    partition = f" {step.partition_key}" if step.has_partition_key else ""
    return f"dagster {first} {step.op_handle}{partition}"


def _cancel(client: Client, job: str) -> None:
    try:
        client.cancel(job, "its Dagster run was terminated")
    except JobStateError:
        return  # it has ended: nothing is left to stop
