"""The operator and the trigger with the real Airflow (`make orchestrators`)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import TaskDeferred

from producer.integrations import airflow
from producer.integrations.airflow import JobTrigger, MaskmillOperator
from support.commands import environment as environment_of
from support.commands import wait_for
from worker.contract.errors import BrokerUnavailable, SettingsError
from worker.contract.job import JobStatus

pytestmark = pytest.mark.filterwarnings("ignore")
CONTEXT = {"ti": SimpleNamespace(dag_id="shop", task_id="masks", run_id="scheduled__2026-01-31", map_index=-1)}


@pytest.fixture
def operator_of(source, dest):
    def make(**more):
        return MaskmillOperator(task_id="masks", source=source, dest=dest, poll_seconds=0.1, **more)

    return make


def only_job(ledger):
    [view] = ledger.jobs(10)
    return view


def deferred(operator) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(CONTEXT)
    return raised.value


async def first_event(trigger: JobTrigger):
    return (await anext(trigger.run())).payload


def again(trigger: JobTrigger) -> JobTrigger:
    """Return the trigger as another triggerer receives it."""
    place, kwargs = trigger.serialize()
    assert place == "producer.integrations.airflow.JobTrigger"
    return JobTrigger(**kwargs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"polcy": {"priority": "high"}}, "polcy"),
        ({"outputs": {"fromat": "webp"}}, "did you mean format"),
        ({"policy": {"max_fail": 3}}, "did you mean max_failed"),
        ({"outputs": "cutout"}, "outputs takes a mapping"),
    ],
)
def test_a_typo_in_an_argument_is_refused_when_the_dag_is_read(operator_of, wrong, message):
    with pytest.raises((TypeError, ValueError, SettingsError), match=message):
        operator_of(**wrong)


def test_a_task_submits_and_waits(operator_of, fake_worker, ledger):
    facts = operator_of(outputs={"outputs": ["cutout"], "format": "webp"}, policy={"priority": "high"}).execute(CONTEXT)

    view = only_job(ledger)
    assert (facts["job"], facts["ok"], facts["status"]) == (view.job, 3, "finished")
    assert (view.options.format, view.policy.priority) == ("webp", "high")


def test_an_attempt_after_a_worker_died_joins_the_job(operator_of, fake_worker, ledger):
    fake_worker.idle.set()
    with pytest.raises(TimeoutError, match="it continues"):  # as if the worker had died while it waited
        operator_of(timeout=timedelta(seconds=0.2)).execute(CONTEXT)
    fake_worker.idle.clear()

    facts = operator_of().execute(CONTEXT)

    assert facts["job"] == only_job(ledger).job and sorted(fake_worker.done) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_retry_runs_only_the_failed_images(operator_of, fake_worker, ledger):
    fake_worker.bad.add("b.jpg")
    with pytest.raises(
        AirflowException, match=r"1 of 3 images of job .* failed \(1 undecodable\): see `producer status"
    ):
        operator_of().execute(CONTEXT)
    assert operator_of(allow_failed=True).execute(CONTEXT)["failed"] == 1
    fake_worker.bad.clear()
    fake_worker.done.clear()

    assert operator_of().execute(CONTEXT)["ok"] == 3
    assert fake_worker.done == ["b.jpg"] and only_job(ledger).epoch == 1


def test_runs_tasks_and_mapped_tasks_have_jobs_of_their_own(operator_of, fake_worker, ledger, dest):
    for changes in ({}, {"run_id": "r2"}, {"task_id": "t2"}, {"map_index": 0}, {"map_index": 1}):
        operator = operator_of()
        operator.dest = f"{dest}{changes}/"
        operator.execute({"ti": SimpleNamespace(**(vars(CONTEXT["ti"]) | changes))})

    assert len(ledger.jobs(10)) == 5


def test_a_deferred_task_waits_in_the_triggerer(operator_of, fake_worker, ledger):
    fake_worker.idle.set()
    operator = operator_of(deferrable=True, timeout=timedelta(hours=2))
    waiting = deferred(operator)
    assert (waiting.method_name, waiting.timeout) == ("execute_complete", timedelta(hours=2))
    assert deferred(operator_of(deferrable=True)).trigger.job == waiting.trigger.job  # a second attempt: the same job
    fake_worker.idle.clear()

    event = asyncio.run(first_event(again(waiting.trigger)))

    assert event == {"job": only_job(ledger).job, "status": "finished"}
    assert operator.execute_complete(CONTEXT, event)["ok"] == 3


def test_an_ended_job_needs_no_triggerer(operator_of, fake_worker):
    assert operator_of().execute(CONTEXT) == operator_of(deferrable=True).execute(CONTEXT)


def test_the_trigger_survives_an_unreachable_redis(operator_of, fake_worker, ledger, monkeypatch):
    job = operator_of().execute(CONTEXT)["job"]
    view, calls = airflow.Ledger.view, []

    def away(self, name):
        calls.append(name)
        if len(calls) < 3:
            raise BrokerUnavailable("gone for a moment")
        return view(self, name)

    monkeypatch.setattr(airflow.Ledger, "view", away)

    assert asyncio.run(first_event(JobTrigger(job, 0.01)))["status"] == "finished"


def test_an_unknown_job_fails_the_task(operator_of, fake_worker, ledger):
    event = asyncio.run(first_event(JobTrigger("nope", 0.01)))

    with pytest.raises(AirflowException, match="no job 'nope'"):
        operator_of().execute_complete(CONTEXT, event)


@pytest.mark.parametrize("cancels", [True, False])
def test_ending_a_task_cancels_its_job_if_configured(operator_of, fake_worker, ledger, cancels):
    fake_worker.idle.set()
    operator = operator_of(deferrable=True, cancel_on_kill=cancels)
    trigger = again(deferred(operator).trigger)

    operator.on_kill()
    asyncio.run(trigger.on_kill())  # a second call changes nothing

    assert (only_job(ledger).reason == "its Airflow task was ended") is cancels
    fake_worker.idle.clear()
    wait_for(lambda: only_job(ledger).ended, "the job to end", 20)
    if cancels:
        with pytest.raises(AirflowException, match=r"was cancelled: its Airflow task was ended; 0 of 3 images"):
            operator.execute_complete(CONTEXT, {"job": trigger.job})
        assert operator_of().execute(CONTEXT)["ok"] == 3  # the next attempt continues the job
    assert only_job(ledger).status is JobStatus.FINISHED


DAG = """
import sys
from airflow.sdk import DAG
from producer.integrations.airflow import MaskmillOperator

source, dest = sys.argv[1:]
with DAG("shop", schedule=None) as dag:
    waits = MaskmillOperator(task_id="waits", source=source, dest=dest + "{{ dag.dag_id }}/", poll_seconds=0.1)
    defers = MaskmillOperator(task_id="defers", source=source, dest=dest + "d/", poll_seconds=0.1, deferrable=True)
    waits >> defers

if __name__ == "__main__":
    run = dag.test()
    print("STATE", run.state)
"""


@pytest.mark.timeout(400)  # Airflow takes a minute for its database and the two tasks
@pytest.mark.usefixtures("fake_worker")
def test_a_dag_of_both_kinds_runs(installation, source, dest, ledger, tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "shop.py").write_text(DAG)
    settings = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")}
    environment = environment_of(installation.environment | settings | {"AIRFLOW__CORE__LOAD_EXAMPLES": "False"})
    for command in (["-m", "airflow", "db", "migrate"], [str(tmp_path / "dags" / "shop.py"), source, dest]):
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=190, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    assert "STATE success" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert sorted(str(view.options.dest) for view in ledger.jobs(10)) == [f"{dest}d/", f"{dest}shop/"]
