"""Every `event` that a log line of a worker process may carry, and what it means: a closed list to build alerts on.

`infra/README.md` holds the same table; a test compares both with the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LIBRARY = "library"
"""Of lines that Celery, kombu, botocore or Python write."""

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "beat_failed": "a process could not say that it lives; it tries again",
        "buried": "images that killed their worker again and again were given up",
        "bundle_chosen": "which variant of the network runs, and why",
        "bundle_warning": "the bundle is used, and something is wrong with it",
        "child_killed": "a process that hung or did not stop was killed",
        "compiled_model_damaged": "a compiled model in the cache was no longer whole; it is compiled again",
        "death_not_noted": "Redis did not take the note about a process that died",
        "deregister_failed": "a process that stopped could not deregister; it counts as live for 35 s",
        "dropped": "a chunk needs no work: cancelled, paused, or done already",
        "exporter_listens": "metrics and probes can be asked for",
        "fetch_goes_on": "a download broke off and goes on where it was",
        "follows": "this node no longer leads",
        "handed_back": "what is left of a chunk goes back to the queue",
        "image_failed": "an image failed for good; its code says why",
        "internal_error": "an image met a defect of maskmill; the traceback is with it",
        "job_ended": "every image of a job has its outcome",
        "job_unreadable": "a job's record is of another version, or damaged",
        "leads": "this node feeds the queue from now on",
        "lease_renewal_failed": "a chunk's lease could not be renewed; it is tried again long before it ends",
        "library": "a line of Celery, kombu, botocore or Python itself",
        "lists_incomplete": "a job's lists could not be written as they should",
        "listing_given_up": "the producer of a job vanished while it listed",
        "lock_awaited": "another process works on the same file",
        "manifest_unreadable": "a job's manifest in S3 cannot be read",
        "message_refused": "something in the queue is no message of ours and was dropped",
        "model_fetched": "a file of the network is brought from S3 or a hub",
        "model_from_cache": "the hub is away; the copy on this disk is used",
        "model_loaded": "the network is ready: what was asked for and what was compiled",
        "model_note": "the network runs otherwise than was asked for",
        "not_begun_ahead": "the next chunk could not be begun early",
        "not_put_back": "a message could not be put back; its lease will end instead",
        "not_resigned": "the lead could not be handed over; it ends by itself",
        "out_of_memory": "an image needs more memory than there is",
        "plan": "processes, streams and threads of this node, and why",
        "put_back": "a message whose acknowledgement failed is in the queue again",
        "record_damaged": "a note about a download was not readable and is written anew",
        "redis_awaited": "Redis is not there yet",
        "republished": "chunks were lost and are in the queue again",
        "start_failed": "a process cannot start; its code says why",
        "stopped": "all processes of the node have ended",
        "stopping": "the node was told to stop",
        "telemetry_on": "OpenVINO was imported by something else first, with its telemetry",
        "tracing_missing": "traces are asked for, and OpenTelemetry is not installed",
        "trouble": "the steward cannot do a part of its work; it tries again",
        "worker_ended": "a process ended by itself and is started again",
        "worker_killed": "a process was still there after the time for stopping",
        "worker_started": "a process was started on its cores",
    }
)
