"""Every `event` that a log record of a worker process may carry, and what it means: a closed list to build alerts on.

`infra/README.md` holds the same table; a test compares both with the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LIBRARY = "library"
"""Event of records that Celery, kombu, botocore or Python write."""

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "bundle_copy_deleted": "a copy of a bundle in the cache that no process used for 30 days was deleted",
        "bundle_selected": "the variant of the network that runs, and the reason",
        "bundle_warning": "the bundle is used although something is wrong with it",
        "channel_not_closed": "a closed channel could not put back its messages; others do when their leases expire",
        "chunk_returned": "the rest of a chunk goes back to the queue, or waits for S3",
        "chunk_skipped": "a chunk needs no work: its job is cancelled or paused, or the chunk is already done",
        "chunks_republished": "lost chunks are queued again",
        "compiled_cache_corrupt": "a compiled model in the cache was damaged; it is compiled again",
        "core_plan": "processes, streams and threads of this node, and the reason",
        "crash_report_failed": "Redis did not accept the reason why a model process died",
        "deregister_failed": "a process that stopped could not deregister; it counts as live for 35 s",
        "download_record_invalid": "the record of a download was unreadable; it is written again",
        "download_resumed": "a download was interrupted and continues where it stopped",
        "fleet_metrics_failed": "the state of the fleet could not be read for a scrape",
        "heartbeat_failed": "a process could not send its heartbeat; it tries again",
        "http_listening": "metrics and probes are served",
        "image_dead": "an image crashed its model process too often and is given up",
        "image_failed": "an image failed permanently; its code says why",
        "internal_error": "an image met a defect of maskmill; the traceback is attached",
        "job_end_unconfirmed": "too few replicas of Redis confirmed the end of a job; a failover now may undo it",
        "job_ended": "every image of a job has its outcome, and its lists are written",
        "job_failed": "the steward failed at one job; it leaves the job alone for a while",
        "job_lists_incomplete": "some lists of a job could not be written",
        "job_record_invalid": "the record of a job is damaged or of another version; `producer forget` removes it",
        "job_stuck": "the keys of a job in Redis were changed so that it could not end; it is cancelled",
        "leader_acquired": "this node now leads the role",
        "leader_lost": "this node no longer leads the role",
        "leader_release_failed": "the leader lock could not be released; it expires by itself",
        "lease_renewal_failed": "a chunk's lease could not be renewed; the next attempt comes well before it expires",
        "library": "a record of Celery, kombu, botocore or Python itself",
        "listing_completed": "the listing of a job was complete in S3, though not in Redis; the job runs",
        "listing_abandoned": "the producer of a job stopped while it listed the images",
        "lock_waiting": "another process holds the lock of the same file",
        "manifest_invalid": "the manifest of a job in S3 cannot be read",
        "message_refused": "the queue held something that is not a chunk message; it was dropped",
        "message_requeued": "a message whose acknowledgement failed is queued again",
        "model_fetch_started": "a file of the network is being fetched from S3, a hub, a web server or a package index",
        "model_from_cache": "the hub is unavailable; the cached copy is used",
        "model_loaded": "the network is ready: requested and actual settings",
        "model_process_killed": "a model process that hung or did not stop was killed",
        "model_settings_adjusted": "the network runs with other settings than requested",
        "model_source_failed": "one source of a network failed; the next one is tried",
        "network_preparing": "a network of the catalogue is being fetched and imported before the workers start",
        "network_resolved": "what the model source `default` stands for on this machine",
        "node_accepted": "S3 accepts this worker process again; it takes chunks",
        "node_refused": "S3 refuses the credentials or the clock of this worker process, which takes no chunks for now",
        "node_stopped": "all processes of the node have ended",
        "node_stopping": "the node was asked to stop",
        "openvino_telemetry_active": "OpenVINO was imported earlier by other code, with its telemetry enabled",
        "out_of_memory": "an image needs more memory than is available",
        "outcomes_invalid": "entries of a job's log in Redis were no outcomes; they were dropped",
        "prefetch_skipped": "the next chunk could not be started early",
        "primary_changed": "another Redis server is the primary, or it was restarted; lost chunks are found at once",
        "process_exited": "a process ended by itself and will be restarted",
        "process_killed": "a process was still running after the grace period",
        "process_not_started": "a process could not be started for lack of memory or descriptors; it is tried again",
        "process_started": "a process was started on its cores",
        "redis_waiting": "Redis is not available yet",
        "requeue_failed": "a message could not be put back; the broker redelivers it when its lease expires",
        "role_failed": "the steward failed at a part of its work; it tries again",
        "start_failed": "a process cannot start; its code says why",
        "start_failure_unreported": "the reason of a failed start did not reach Redis; producers cannot show it",
        "store_failure": "S3 fails for one object while it serves others; the image runs again later, then it fails",
        "store_waiting": "S3 cannot be reached at the start of a worker process; its chunks wait",
        "tracing_unavailable": "tracing is configured, but OpenTelemetry is not installed",
    }
)
