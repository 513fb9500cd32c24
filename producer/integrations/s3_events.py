"""Events of a bucket -> a job: images are cut out as they arrive. Needs nothing but an event and a `Client`.

As an AWS Lambda function behind a bucket, a queue, a topic or EventBridge:

    client = Client()

    def handler(event, context):
        submitted = submit_created(client, event, "s3://shop/photos/", "s3://shop/masks/")
        return submitted and submitted.job

or as the webhook of MinIO or SeaweedFS: give the JSON body that was posted. An event becomes one job of all its
images, so events should come in batches where there are many. Such events are delivered at least once: the job key is
made of what the event says, so a second delivery joins the first one's job, and an object that comes again in another
batch is found up to date.

Layouts: Amazon S3 User Guide, "Event message structure" and "EventBridge event message structure"; MinIO, "Bucket
notifications"; SeaweedFS, `filer_pb.EventNotification` as its webhook posts it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from producer.client import Client
from producer.sources.item import has_image_suffix
from producer.submit import Submitted
from worker.contract.errors import SourceError
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url

Event = Mapping[str, Any]

_CREATED = ("ObjectCreated", "s3:ObjectCreated")
_SEAWEED_BUCKETS = "/buckets/"


class Created(NamedTuple):
    """An object that was written."""

    place: S3Url
    state: str
    """Differs when it is written again: sequencer, version or ETag, whichever the event has."""


def submit_created(
    client: Client,
    event: Event | str | bytes,
    source: str,
    dest: str,
    *,
    outputs: OutputOptions | None = None,
    policy: JobPolicy | None = None,
) -> Submitted | None:
    """Submit the images that an event says were written under `source`; None if there are none.

    What is written under `dest` is passed over, so that masks in the same bucket do not make events of their own go
    round for ever.

    Args:
        client: submits.
        event: as it was delivered, or its JSON text.
        source: s3:// prefix; outputs keep the tree below it.
        dest: s3:// prefix that outputs go under.
        outputs: what to write for each image; None: masks in PNG.
        policy: how to run it.

    Raises:
        SourceError: it is not an event of a bucket.
        MaskmillError: as `Client.submit`; deliver the event again.
    """
    root, target = S3Url.folder(source), S3Url.folder(dest)
    options, rules = outputs or OutputOptions(), policy or JobPolicy()
    wanted = sorted({one for one in created(event) if _is_wanted(one.place, root, target)}, key=str)
    if not wanted:
        return None
    facts = [str(root), str(target), options.model_dump_json(), *(f"{one.place} {one.state}" for one in wanted)]
    key = f"s3-event {hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}"
    keys = dict.fromkeys(one.place.key.removeprefix(root.key) for one in wanted)
    return client.submit(str(root), str(target), outputs=options, policy=rules, keys=keys, job_key=key)


def created(event: Event | str | bytes) -> list[Created]:
    """The objects that an event says were written; empty for deletions and for the test that S3 sends at first.

    Raises:
        SourceError: it is not an event of a bucket.
    """
    try:
        facts = event if isinstance(event, Mapping) else json.loads(event)
        return list(_created(facts))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"not an event of a bucket ({type(error).__name__}: {error})") from error


def _created(event: Event) -> Iterator[Created]:
    if "Records" in event:
        for record in event["Records"]:
            yield from _of_record(record)
    elif event.get("Type") == "Notification":  # of a topic, through a queue
        yield from _created(json.loads(event["Message"]))
    elif "detail-type" in event:
        if event["detail-type"] == "Object Created":
            yield _of_event_bridge(event["detail"])
    elif "event_type" in event:
        yield from _of_seaweed(event)
    elif event.get("Event") != "s3:TestEvent":
        raise ValueError(f"it has none of Records, detail-type, event_type, but {', '.join(sorted(event))[:200]}")


def _of_record(record: Event) -> Iterator[Created]:
    if "body" in record:  # of a queue
        yield from _created(json.loads(record["body"]))
    elif "Sns" in record:
        yield from _created(json.loads(record["Sns"]["Message"]))
    elif record["eventName"].startswith(_CREATED):
        item = record["s3"]["object"]
        place = S3Url(record["s3"]["bucket"]["name"], unquote_plus(item["key"]))
        yield Created(place, str(item.get("sequencer") or item.get("versionId") or item.get("eTag") or ""))


def _of_event_bridge(detail: Event) -> Created:
    """Keys are as they are here, not encoded."""
    item = detail["object"]
    state = item.get("sequencer") or item.get("version-id") or item.get("etag") or ""
    return Created(S3Url(detail["bucket"]["name"], item["key"]), str(state))


def _of_seaweed(event: Event) -> Iterator[Created]:
    """Every change of its filer; buckets are folders below `/buckets`."""
    message = event.get("message") or {}
    entry = message.get("new_entry")
    path = str(event["key"])
    if not entry or entry.get("is_directory"):
        return
    if message.get("new_parent_path"):  # it was moved
        path = f"{message['new_parent_path']}/{entry['name']}"
    bucket, _, key = path.removeprefix(_SEAWEED_BUCKETS).partition("/")
    if path.startswith(_SEAWEED_BUCKETS) and key:
        facts = entry.get("attributes") or {}
        state = facts.get("md5") or f"{facts.get('mtime', '')} {facts.get('file_size', '')}"
        yield Created(S3Url(bucket, key), str(state))


def _is_wanted(place: S3Url, root: S3Url, target: S3Url) -> bool:
    inside = place.bucket == root.bucket and place.key.startswith(root.key) and place.key != root.key
    own = place.bucket == target.bucket and place.key.startswith(target.key)
    return inside and not own and has_image_suffix(place.key)
