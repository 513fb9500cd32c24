"""Values that processes of different releases share through Redis; a running fleet can be upgraded while they stay.

A failure here means that old workers, producers or job records no longer fit the new release. Change a value only with
a migration, and an added value together with its readers.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from types import SimpleNamespace

from worker.contract import outcome_codec, output_names, redis_keys
from worker.contract.job import MAX_IMAGES, JobView
from worker.contract.ledger.fleet import WorkerFacts
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, MaskQuality, Outcome, OutcomeKind
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import RedisSettings, Settings

OPTIONS = {
    "outputs": ["mask"],
    "format": "png",
    "mask_format": None,
    "quality": 90,
    "background": "#ffffff",
    "background_etag": "",
    "exif": "strip",
    "crop": False,
    "crop_margin": "0px",
    "threshold": None,
    "refine": False,
    "max_side": None,
    "name": "",
    "source": "s3://in/photos/",
    "dest": "s3://out/masks/",
}
POLICY = {
    "priority": "normal",
    "max_attempts": 3,
    "max_failed": None,
    "max_failed_percent": None,
    "skip_existing": True,
    "folder": "",
}
MESSAGE = {
    "schema_version": 1,
    "job": "job",
    "epoch": 1,
    "chunk": 2,
    "start": 6,
    "keys": ["d/a.jpg", "b.jpg"],
    "traceparent": "",
}


def test_keys_of_an_installation():
    assert redis_keys.jobs("p:") == "p:jobs"
    assert redis_keys.active("p:") == "p:active"
    assert redis_keys.job_key("p:", "nightly") == "p:key:nightly"
    assert redis_keys.workers("p:") == "p:workers"
    assert redis_keys.worker_facts("p:") == "p:worker-facts"
    assert redis_keys.leader("p:", "feed") == "p:leader:feed"
    assert redis_keys.queue("p:", "images") == "p:images"
    assert redis_keys.unacked("p:") == "p:unacked"


def test_keys_of_a_job_in_the_order_of_the_scripts():
    assert redis_keys.job_keys("p:", "j") == (
        "p:job:{j}",
        "p:job:{j}:img",
        "p:job:{j}:att",
        "p:job:{j}:out",
        "p:job:{j}:run",
        "p:job:{j}:sus",
        "p:job:{j}:ret",
        "p:job:{j}:err",
        "p:job:{j}:log",
    )
    assert redis_keys.job("p:", "j") == redis_keys.job_keys("p:", "j").record
    assert (
        "local JOB, IMAGES, ATTEMPTS, OUTSTANDING, RUNNING, SUSPECTS, RETURNED, FAILURES, LOG = unpack(KEYS)" in lua()
    )


def test_queues_and_the_task():
    assert redis_keys.QUEUES == ("images-express", "images")
    assert (redis_keys.EXPRESS_QUEUE, redis_keys.QUEUE) == redis_keys.QUEUES
    assert redis_keys.TASK_CHUNK == "maskmill.chunk"
    assert redis_keys.task_id("job", 1, 2) == "job.1.2"
    assert redis_keys.parse_task_id("job.1.2") == ("job", 1, 2)
    app = make_celery(Settings(redis={"prefix": "p:"}))
    assert [queue.name for queue in app.conf.task_queues] == ["images-express", "images"]
    assert app.conf.broker_transport_options["global_keyprefix"] == "p:"
    assert (app.conf.task_serializer, app.conf.task_compression) == ("json", "zlib")


def test_the_chunk_message():
    message = ChunkMessage(job="job", epoch=1, chunk=2, start=6, keys=("d/a.jpg", "b.jpg"))

    assert message.model_dump(mode="json") == MESSAGE
    assert ChunkMessage.read(MESSAGE) == message
    assert (ChunkMessage.OLDEST, ChunkMessage.SCHEMA) == (1, 1)


def test_options_and_policy_of_a_job():
    options = JobOptions(source="s3://in/photos/", dest="s3://out/masks/")

    assert json.loads(options.model_dump_json()) == OPTIONS
    assert json.loads(JobPolicy().model_dump_json()) == POLICY
    assert options.digest() == "c9c1dab929154874"


def test_the_outcome_of_an_image():
    quality = MaskQuality(coverage=0.5, soft=0.1, empty=False, full=False, touches_border=True)
    outcome = Outcome(
        index=3,
        key="a.jpg",
        kind=OutcomeKind.FAILED,
        code="undecodable",
        message="why",
        outputs=("a.png",),
        seconds=1.5,
        stages={"infer": 1.0},
        quality=quality,
        at=2.0,
    )

    assert json.loads(outcome.model_dump_json(exclude_defaults=True)) == {
        "index": 3,
        "key": "a.jpg",
        "kind": "failed",
        "code": "undecodable",
        "message": "why",
        "outputs": ["a.png"],
        "seconds": 1.5,
        "stages": {"infer": 1.0},
        "quality": {"coverage": 0.5, "soft": 0.1, "empty": False, "full": False, "touches_border": True},
        "at": 2.0,
    }
    assert {kind.value: number for kind, number in outcome_codec.NUMBERS.items()} == {
        "ok": 1,
        "skipped": 2,
        "failed": 3,
        "dead": 4,
        "cancelled": 5,
    }


def test_the_facts_of_a_worker():
    facts = WorkerFacts(name="w@n", cpus=(0, 1), streams=1, threads=2, model="m", size=320, precision="int8/bf16")

    assert json.loads(facts.model_dump_json()) == {
        "name": "w@n",
        "cpus": [0, 1],
        "streams": 1,
        "threads": 2,
        "model": "m",
        "size": 320,
        "precision": "int8/bf16",
        "digest": "",
        "seconds_per_image": None,
    }


def test_the_fields_that_a_new_job_record_has():
    written: dict[str, object] = {}
    pipeline = SimpleNamespace(
        hset=lambda key, mapping: written.update(mapping),
        zadd=lambda *_: None,
        sadd=lambda *_: None,
        execute=lambda: None,
    )
    ledger = Ledger(RedisSettings())
    ledger.connection.client = SimpleNamespace(
        time=lambda: (5, 500_000), info=lambda _: {"run_id": "of-the-server"}, pipeline=lambda **_: pipeline
    )
    options = JobOptions(source="s3://in/photos/", dest="s3://out/masks/")

    ledger.create("job", options, JobPolicy(max_failed=7, max_failed_percent=2.5), traceparent="00-trace")

    assert json.loads(str(written.pop("options"))) == OPTIONS
    assert json.loads(str(written.pop("policy"))) == POLICY | {"max_failed": 7, "max_failed_percent": 2.5}
    assert written == {
        "job": "job",
        "max_attempts": 3,
        "max_failed": 7,
        "max_failed_percent": 2.5,
        "status": "listing",
        "epoch": 0,
        "created_at": 5.5,
        "queued_at": 5.5,
        "beat_at": 5.5,
        "server": "of-the-server",
        "traceparent": "00-trace",
    }


def test_the_fields_that_are_read_from_a_job_record():
    record = {
        "job": "job",
        "status": "closing",
        "options": json.dumps(OPTIONS),
        "policy": json.dumps(POLICY),
        "epoch": "1",
        "chunk_images": "3",
        "total": "9",
        "bytes": "100",
        "chunks": "3",
        "cursor": "2",
        "ok": "1",
        "skipped": "2",
        "failed": "3",
        "dead": "1",
        "cancelled": "2",
        "created_at": "1.5",
        "queued_at": "2.5",
        "beat_at": "3.5",
        "submitted_at": "4.5",
        "started_at": "5.5",
        "completed_at": "6.5",
        "finished_at": "7.5",
        "core_seconds": "8.5",
        "ending": "finished",
        "reason": "why",
        "wait_for": "S3 answered 500",
        "wait_since": "13.5",
        "wait_at": "14.5",
        "store_retry_at": "15.5",
        "store_bucket": "photos",
        "code:undecodable": "4",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "model:contrast 320": "3",
    }

    view = JobView.read(record, record["job"])

    nested = {"options", "policy", "codes", "models", "status"}
    plain = {name: str(value) for name, value in dict(view).items() if name not in nested}
    assert plain == {name: value for name, value in record.items() if ":" not in name and name not in nested}
    assert (view.codes, view.models, view.status.value) == ({"undecodable": 4}, {"contrast 320": 3}, "closing")
    assert set(JobView.model_fields) == {*plain, *nested}


def test_the_words_of_the_scripts():
    """Fields of all hashes and of the stream, statuses, verdicts and actions; commands and sentences are left out."""
    code = "\n".join(line.split("--", 1)[0] for line in lua().splitlines())
    words = set(re.findall(r"'([a-z_]+:?)'", code))

    fields = (
        "beat_at bytes cancelled chunk_images chunks code: completed_at core_seconds cursor dead ending epoch failed "
        "finished_at judged_after max_attempts max_failed max_failed_percent model: ok options pardoned policy "
        "queued_at reason recheck restored_by skipped started_at status store_bucket store_pauses store_retry_at "
        "submitted_at total wait_at wait_for wait_since"
    )
    suspects, stream = "chunk: deaths: store: stored: why:", "o"
    primary = "run_id server since"
    statuses = "listing running paused stopping closing reopening finished cancelled stopped"
    verdicts = "run done busy paused waiting cancelled stale unknown"
    actions = "cancel pause resume abandon"
    types = "hash list none set stream string zset table"
    assert words == {*f"{fields} {suspects} {stream} {primary} {statuses} {verdicts} {actions} {types}".split()}


def test_python_and_the_scripts_allow_jobs_of_the_same_size():
    assert f"MAX_IMAGES = {MAX_IMAGES}\n" in lua()


def test_the_folder_of_jobs_in_s3():
    assert output_names.JOB_PREFIX == "_maskmill/"
    assert output_names.BEHIND_JOBS == "_maskmill0"
    assert output_names.JOB_PREFIX + "~" < output_names.BEHIND_JOBS < "_maskmilla"


def lua() -> str:
    folder = resources.files("worker.contract.ledger") / "lua"
    return "\n".join(path.read_text("utf-8") for path in folder.iterdir() if path.name.endswith(".lua"))
