"""The resource in runs of the real Dagster (`make orchestrators`).

Dagster evaluates annotations when it defines an op, so this file must not use `from __future__ import annotations`.
"""

import os
import signal
import threading
import time

import dagster
import pytest

from producer.integrations.dagster import MaskmillResource
from support.commands import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")
DAYS = dagster.StaticPartitionsDefinition(["mon", "tue"])


@pytest.fixture
def masks(source, dest):
    """A partitioned asset with one partition per day."""

    def run(context: dagster.AssetExecutionContext, maskmill: MaskmillResource) -> dagster.MaterializeResult:
        view = maskmill.run(context, source, f"{dest}{context.partition_key}/", outputs={"outputs": ["cutout"]})
        return dagster.MaterializeResult(metadata=maskmill.metadata(view))

    return dagster.asset(run, name="masks", partitions_def=DAYS)


def materialize(asset, day="mon", instance=None, **more):
    return dagster.materialize(
        [asset],
        partition_key=day,
        instance=instance,
        resources={"maskmill": MaskmillResource(poll_seconds=0.1)},
        raise_on_error=False,
        **more,
    )


def metadata_of(result) -> dict:
    [event] = result.asset_materializations_for_node("masks")
    return {name: value.value for name, value in event.metadata.items()}


def test_typos_are_refused():
    with pytest.raises(TypeError, match="has no field 'poll_second'; did you mean poll_seconds"):
        MaskmillResource(poll_second=1)
    with pytest.raises(TypeError, match="polcy"):
        MaskmillResource().run(None, "s3://a/", "s3://b/", polcy={})
    with pytest.raises(ValueError, match="did you mean format"):
        MaskmillResource().run(None, "s3://a/", "s3://b/", outputs={"fromat": "webp"}, job_key="k")


def test_an_asset_has_the_counts_of_its_job_as_metadata(masks, fake_worker, ledger, dest):
    result = materialize(masks)

    assert result.success
    found = metadata_of(result)
    assert (found["ok"], found["status"], found["dest"]) == (3, "finished", f"{dest}mon/")
    assert ledger.view(found["job"]).options.outputs == ("cutout",)


def test_partitions_and_new_materializations_have_jobs_of_their_own(masks, fake_worker, ledger):
    assert all(materialize(masks, day).success for day in ("mon", "tue", "mon"))

    assert len(ledger.jobs(10)) == 3


def test_a_failure_names_its_reason_and_a_re_execution_runs_the_rest(masks, fake_worker, ledger):
    fake_worker.bad_once.add("b.jpg")
    first = materialize(masks)
    [failure] = failures(first)
    assert "1 of 3 images of job" in failure.step_failure_data.error.message
    fake_worker.done.clear()

    again = materialize(masks, tags={"dagster/root_run_id": first.run_id, "dagster/parent_run_id": first.run_id})

    assert again.success and fake_worker.done == ["b.jpg"] and len(ledger.jobs(10)) == 1


def failures(result) -> list:
    return [event for event in result.all_events if event.is_step_failure]


def test_a_retried_step_runs_the_rest(source, dest, fake_worker, ledger):
    fake_worker.bad_once.add("c.jpg")

    @dagster.op(retry_policy=dagster.RetryPolicy(max_retries=1))
    def cut(context: dagster.OpExecutionContext, maskmill: MaskmillResource) -> str:
        return maskmill.run(context, source, dest).job

    @dagster.job(resource_defs={"maskmill": MaskmillResource(poll_seconds=0.1)})
    def shop():
        cut()

    result = shop.execute_in_process(raise_on_error=False)

    assert result.success and result.output_for_node("cut") == ledger.jobs(1)[0].job
    assert fake_worker.done == ["a.jpg", "b.jpg", "c.jpg", "c.jpg"] and len(ledger.jobs(10)) == 1


@pytest.mark.parametrize("cancels", [True, False])
def test_terminating_a_run_cancels_its_job_if_configured(source, dest, fake_worker, ledger, cancels):
    fake_worker.idle.set()

    @dagster.op
    def cut(context: dagster.OpExecutionContext, maskmill: MaskmillResource) -> None:
        maskmill.run(context, source, dest)

    @dagster.job(resource_defs={"maskmill": MaskmillResource(poll_seconds=0.1, cancel_on_interrupt=cancels)})
    def shop():
        cut()

    def terminate() -> None:
        wait_for(lambda: ledger.jobs(1) and ledger.jobs(1)[0].total, "the job", 20)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=terminate)
    killer.start()
    with pytest.raises(dagster.DagsterExecutionInterruptedError):
        shop.execute_in_process()
    killer.join()

    fake_worker.idle.clear()
    wait_for(lambda: ledger.jobs(1)[0].ended, "the job to end", 20)
    assert (ledger.jobs(1)[0].reason == "its Dagster run was terminated") is cancels


def test_the_resource_offers_the_client(source, dest, ledger):
    with MaskmillResource().client() as client, client.plan(source, dest) as plan:
        assert plan.images == 3
