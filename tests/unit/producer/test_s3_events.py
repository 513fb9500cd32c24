"""Bucket events in every supported format."""

from __future__ import annotations

import json

import pytest

from producer.integrations.s3_events import CreatedObject, created_objects, submit_created
from worker.contract.errors import SourceError
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url


def record(key: str, name: str = "ObjectCreated:Put", bucket: str = "shop", **more: str) -> dict:
    return {
        "eventVersion": "2.3",
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 5, **more}},
    }


def seaweed(key: str, kind: str = "create", **message) -> dict:
    return {"key": key, "event_type": kind, "message": message}


AWS = {"Records": [record("photos/a+b%2B%C3%A9.jpg", sequencer="0055AED6DCD90281E5", eTag="e")]}
FILE = {"name": "a.jpg", "attributes": {"file_size": 5, "mtime": 1700000000, "md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}}
TOPIC = {"Type": "Notification", "Message": json.dumps(AWS)}
WRITTEN = CreatedObject(S3Url("shop", "photos/a b+é.jpg"), "0055AED6DCD90281E5")
IN_BRIDGE = {"bucket": {"name": "shop"}, "object": {"key": "photos/a b+é.jpg", "etag": "e", "sequencer": "00"}}
EVENTS = {
    "S3": (AWS, WRITTEN),
    "as text": (json.dumps(AWS), WRITTEN),
    "as bytes": (json.dumps(AWS).encode(), WRITTEN),
    "queue": ({"Records": [{"eventSource": "aws:sqs", "body": json.dumps(AWS)}]}, WRITTEN),
    "topic": ({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(AWS)}}]}, WRITTEN),
    "topic through queue": ({"Records": [{"body": json.dumps(TOPIC)}]}, WRITTEN),
    "EventBridge": ({"detail-type": "Object Created", "detail": IN_BRIDGE}, WRITTEN._replace(state="00")),
    "MinIO": (
        {
            "EventName": "s3:ObjectCreated:CompleteMultipartUpload",
            "Key": "shop/photos/a.jpg",
            "Records": [record("photos%2Fa.jpg", "s3:ObjectCreated:CompleteMultipartUpload", eTag="e-2")],
        },
        CreatedObject(S3Url("shop", "photos/a.jpg"), "e-2"),
    ),
    "SeaweedFS": (
        seaweed("/buckets/shop/photos/a.jpg", new_entry=FILE),
        CreatedObject(S3Url("shop", "photos/a.jpg"), "1B2M2Y8AsgTpgAmY7PhCfg=="),
    ),
    "SeaweedFS, moved": (
        seaweed("/buckets/shop/tmp/x", "rename", old_entry={}, new_entry=FILE, new_parent_path="/buckets/shop/photos"),
        CreatedObject(S3Url("shop", "photos/a.jpg"), "1B2M2Y8AsgTpgAmY7PhCfg=="),
    ),
    "SeaweedFS, without a digest": (
        seaweed("/buckets/shop/a.jpg", new_entry={"name": "a.jpg", "attributes": {"file_size": 5, "mtime": 17}}),
        CreatedObject(S3Url("shop", "a.jpg"), "17 5"),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_written_objects_are_found(name):
    event, expected = EVENTS[name]

    assert created_objects(event) == [expected]


@pytest.mark.parametrize(
    "event",
    [
        {"Records": [record("a.jpg", "ObjectRemoved:Delete"), record("a.jpg", "ObjectTagging:Put")]},
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "shop"},
        {"detail-type": "Object Deleted", "detail": IN_BRIDGE},
        seaweed("/buckets/shop/a.jpg", "delete", old_entry=FILE),
        seaweed("/buckets/shop/photos", new_entry={"name": "photos", "is_directory": True}),
        seaweed("/topics/a.jpg", new_entry=FILE),
        seaweed("/buckets/shop", new_entry=FILE),
    ],
)
def test_events_that_write_no_object_are_ignored(event):
    assert created_objects(event) == []


@pytest.mark.parametrize("event", ["{", "[]", "7", {}, {"foo": 1}, {"Records": [{"eventName": "ObjectCreated:Put"}]}])
def test_anything_else_is_refused(event):
    with pytest.raises(SourceError, match="not a bucket event"):
        created_objects(event)


@pytest.mark.parametrize(
    ("event", "match"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"Records":' * 50_000, "nested too deeply"),
        ({"Records": [record("a.jpg"), record(5)]}, "record 2: key 5 is not a text"),
        ({"Records": [record("a.jpg", bucket=["shop"])]}, "record 1: bucket .* is not a text"),
        ({"Records": [record("\ud800.jpg")]}, "record 1: key .* is not a text"),
        ({"Records": [None]}, "record 1: TypeError"),
        ({"detail-type": "Object Created", "detail": {"bucket": {"name": "b"}, "object": {"key": 5}}}, "key 5"),
        ({"detail-type": "Object Created", "detail": {"bucket": {"name": ""}, "object": {"key": "k"}}}, "bucket ''"),
        (seaweed(5, new_entry=FILE), "key 5"),
        (seaweed("/buckets/shop/\udcff.jpg", new_entry=FILE), "key .* is not a text"),
    ],
)
def test_an_odd_event_is_refused_with_its_record(event, match):
    with pytest.raises(SourceError, match=f"not a bucket event.*{match}"):
        submit_created(Recorder(), event, "s3://shop/photos", "s3://shop/masks")


def test_an_event_in_too_many_envelopes_is_refused():
    event: dict = AWS
    for _ in range(4):
        event = {"Records": [{"body": json.dumps(event)}]}

    with pytest.raises(SourceError, match="nested too deeply"):
        created_objects(event)


class Recorder:
    def __init__(self):
        self.calls = []

    def submit(self, source, dest, **more):
        self.calls.append((source, dest, more["outputs"], list(more["keys"]), more["job_key"]))
        return more["job_key"]


def submitted(*records: dict, dest: str = "s3://shop/masks", **more):
    client = Recorder()
    submit_created(client, {"Records": list(records)}, "s3://shop/photos", dest, **more)
    return client.calls


def test_images_below_the_source_become_one_job():
    first, second = record("photos/b.jpg", sequencer="1"), record("photos/d/a+1.png", sequencer="2")
    others = [record("photos/notes.txt"), record("other/x.jpg"), record("photos/y.jpg", bucket="elsewhere")]

    [(source, dest, options, keys, _)] = submitted(second, first, first, *others)

    assert (source, dest, options) == ("s3://shop/photos/", "s3://shop/masks/", OutputOptions())
    assert keys == ["b.jpg", "d/a 1.png"]


def test_outputs_do_not_trigger_new_jobs():
    assert submitted(record("photos/masks/a.png"), dest="s3://shop/photos/masks") == []


def test_the_job_key_depends_on_the_event_and_the_options_only():
    def key(*records, **more):
        return submitted(*records, **more)[0][-1]

    one, two = record("photos/a.jpg", sequencer="1"), record("photos/b.jpg", sequencer="2")
    keys = [
        key(one),
        key(two),
        key(one, two),
        key(record("photos/a.jpg", sequencer="3")),
        key(one, dest="s3://shop/other"),
        key(one, outputs=OutputOptions(format="webp")),
    ]

    assert len(set(keys)) == len(keys)
    assert key(one, two) == key(two, one, two)
