"""Turn bucket events into jobs, so that images are cut out as they arrive. Needs only an event and a `Client`.

Use it in an AWS Lambda function that receives events from a bucket, a queue, a topic or EventBridge:

    client = Client()

    def handler(event, context):
        submitted = submit_created(client, event, "s3://shop/photos/", "s3://shop/masks/")
        return submitted and submitted.job

or behind a webhook of MinIO or SeaweedFS: pass the JSON body that was posted. All images of an event become one job, so
deliver frequent events in batches. Events are delivered at least once. The job key is derived from the content of the
event, so a second delivery joins the job of the first, and an object that arrives again in another batch is found up
to date.

Event formats: Amazon S3 User Guide, "Event message structure" and "EventBridge event message structure"; MinIO, "Bucket
notifications"; SeaweedFS, `filer_pb.EventNotification` as its webhook posts it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from producer.client import Client
from producer.sources.item import Item, has_image_suffix, is_marker
from producer.submit import Submitted
from worker.contract.errors import SourceError
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.printable import is_utf8
from worker.contract.s3url import S3Url

BucketEvent = Mapping[str, Any]

_CREATED_EVENTS = ("ObjectCreated", "s3:ObjectCreated")
_MAX_NESTING = 4
"""Envelopes around an event: a topic that delivers to a queue has two."""

_SEAWEED_BUCKETS = "/buckets/"


class CreatedObject(NamedTuple):
    """An object that was written."""

    url: S3Url
    state: str
    """Differs when the object is written again: sequencer, version or ETag, whichever the event has."""


def submit_created(
    client: Client,
    event: BucketEvent | str | bytes,
    source: str,
    dest: str,
    *,
    outputs: OutputOptions | None = None,
    policy: JobPolicy | None = None,
) -> Submitted | None:
    """Submit the images that an event reports as written under `source`; return None if there are none.

    Objects under `dest` are ignored: otherwise a mask written to the same bucket would trigger another job, and so on
    without end.

    Args:
        client: client that submits the job.
        event: the event as delivered, or its JSON text.
        source: s3:// prefix; outputs keep the tree below it.
        dest: s3:// prefix for the outputs.
        outputs: what to write for each image; None writes masks in PNG.
        policy: how to run the job.

    Raises:
        SourceError: the value is not a bucket event.
        MaskmillError: as for `Client.submit`; deliver the event again.
    """
    root, target = S3Url.folder(source), S3Url.folder(dest)
    options, rules = outputs or OutputOptions(), policy or JobPolicy()
    images = sorted({item for item in created_objects(event) if _is_input(item.url, root, target)}, key=str)
    if not images:
        return None
    facts = [str(root), str(target), options.model_dump_json(), *(f"{image.url} {image.state}" for image in images)]
    key = f"s3-event {hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}"
    keys = dict.fromkeys(image.url.key.removeprefix(root.key) for image in images)
    return client.submit(str(root), str(target), outputs=options, policy=rules, keys=keys, job_key=key)


def created_objects(event: BucketEvent | str | bytes) -> list[CreatedObject]:
    """Return the objects that an event reports as written; empty for deletions and for the test event of S3.

    Raises:
        SourceError: the value is not a bucket event.
    """
    try:
        facts = event if isinstance(event, Mapping) else json.loads(event)
        return list(_created(facts, _MAX_NESTING))
    except _INVALID as error:
        raise SourceError(f"not a bucket event ({_reason(error)})") from error


_INVALID = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading an event raises if it has another form."""


def _reason(error: Exception) -> str:
    """Return what is wrong with an event: our own sentence, or the kind of error."""
    if isinstance(error, _WrongField):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{type(error).__name__}: {error!s:.200}"


class _WrongField(ValueError):
    """A field of an event does not hold what it must hold."""


def _created(event: BucketEvent, levels: int) -> Iterator[CreatedObject]:
    """Yield the objects of an event that may lie in up to `levels` envelopes."""
    if not levels:
        raise _WrongField("nested too deeply")
    if "Records" in event:
        for number, record in enumerate(event["Records"], 1):
            try:
                yield from _from_record(record, levels - 1)
            except _INVALID as error:
                raise _WrongField(f"record {number}: {_reason(error)}") from error
    elif event.get("Type") == "Notification":  # a topic (SNS) that delivers to a queue (SQS)
        yield from _created(json.loads(event["Message"]), levels - 1)
    elif "detail-type" in event:
        if event["detail-type"] == "Object Created":
            yield _from_event_bridge(event["detail"])
    elif "event_type" in event:
        yield from _from_seaweed(event)
    elif event.get("Event") != "s3:TestEvent":
        raise _WrongField(f"expected Records, detail-type or event_type, found {', '.join(sorted(event))[:200]}")


def _from_record(record: BucketEvent, levels: int) -> Iterator[CreatedObject]:
    if "body" in record:  # a queue (SQS)
        yield from _created(json.loads(record["body"]), levels)
    elif "Sns" in record:
        yield from _created(json.loads(record["Sns"]["Message"]), levels)
    elif record["eventName"].startswith(_CREATED_EVENTS):
        item = record["s3"]["object"]
        url = _place(record["s3"]["bucket"]["name"], unquote_plus(_text("key", item["key"])))
        yield CreatedObject(url, str(item.get("sequencer") or item.get("versionId") or item.get("eTag") or ""))


def _place(bucket: Any, key: Any) -> S3Url:
    return S3Url(_text("bucket", bucket), _text("key", key))


def _text(name: str, value: Any) -> str:
    """Return a field that must hold text.

    Raises:
        _WrongField: it holds nothing, or no text that can be written as UTF-8.
    """
    if not isinstance(value, str) or not value or not is_utf8(value):
        raise _WrongField(f"{name} {value!r:.80} is not a text")
    return value


def _from_event_bridge(detail: BucketEvent) -> CreatedObject:
    """Return the object of an EventBridge event, whose key is not URL-encoded."""
    item = detail["object"]
    state = item.get("sequencer") or item.get("version-id") or item.get("etag") or ""
    return CreatedObject(_place(detail["bucket"]["name"], item["key"]), str(state))


def _from_seaweed(event: BucketEvent) -> Iterator[CreatedObject]:
    """Yield the object of a SeaweedFS event; its filer reports every change, and buckets are folders in `/buckets`."""
    message = event.get("message") or {}
    entry = message.get("new_entry")
    path = _text("key", event["key"])
    if not entry or entry.get("is_directory"):
        return
    if message.get("new_parent_path"):  # the object was moved
        path = f"{message['new_parent_path']}/{entry['name']}"
    bucket, _, key = path.removeprefix(_SEAWEED_BUCKETS).partition("/")
    if path.startswith(_SEAWEED_BUCKETS) and key:
        facts = entry.get("attributes") or {}
        state = facts.get("md5") or f"{facts.get('mtime', '')} {facts.get('file_size', '')}"
        yield CreatedObject(_place(bucket, key), str(state))


def _is_input(url: S3Url, root: S3Url, target: S3Url) -> bool:
    """Return whether the object is an image below the source and not an output."""
    in_source = url.bucket == root.bucket and url.key.startswith(root.key) and url.key != root.key
    is_output = url.bucket == target.bucket and url.key.startswith(target.key)
    return in_source and not is_output and has_image_suffix(url.key) and not is_marker(Item(url.key))
