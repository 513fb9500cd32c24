"""The Celery app of producer and worker. Both create it here, so their configurations cannot differ.

Comments give the reasons for values that differ from Celery's defaults. Celery transports the work but does not
guarantee delivery; the ledger does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery, states
from celery.backends.redis import RedisBackend as StockRedisBackend
from kombu.entity import Exchange, Queue
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import RedisError

from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable, JobNotFound
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.primary import Primary
from worker.contract.messages import MAX_CHUNK_IMAGES, ChunkMessage
from worker.contract.queue import admission
from worker.contract.settings import Settings


class RedisBackend(StockRedisBackend):  # type: ignore[misc]  # Celery has no types
    """Celery's Redis result backend, which answers for a chunk as long as Redis has its job record.

    Results of chunks expire after minutes, because those of a job with ten million images would fill Redis. For an
    expired result, the backend answers from the ledger, which stores the outcome of every image in four bits.
    """

    def _get_pool(self, **params: Any) -> Any:
        """Return a pool of connections that follow the primary."""
        return self.app.maskmill_primary.pool(**params)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing when a message is sent. The stock class would send one SUBSCRIBE per message."""

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return state and result of a chunk; from the ledger if its result has expired."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)
        ours = redis_keys.parse_task_id(task_id) if meta["status"] == states.PENDING else None
        return meta if ours is None else self._from_ledger(*ours) or meta

    def _from_ledger(self, job: str, epoch: int, chunk: int) -> dict[str, Any] | None:
        with Ledger(self.app.maskmill.redis, patient=False) as ledger:
            try:
                view = ledger.view(job)
            except JobNotFound:
                return None
            first = chunk * view.chunk_images
            outcomes = ledger.outcomes(job, first, min(view.chunk_images, (view.total or 0) - first))
        if epoch > view.epoch or not outcomes or None in outcomes:
            return None
        result = {"job": job, "chunk": chunk, "start": first, "outcomes": [kind.value for kind in outcomes if kind]}
        return {"status": states.SUCCESS, "result": result, "traceback": None, "children": []}


def make_celery(settings: Settings, *, client_name: str = "maskmill") -> Celery:
    """Return a configured app without tasks. The worker registers its task; the producer sends by name.

    Args:
        settings: the settings of this process.
        client_name: name of the connections in `CLIENT LIST`.
    """
    url = settings.redis.secret_url()
    scheme, rest = url.split("://", 1)
    app = Celery("maskmill", broker=url, backend=f"{__name__}:RedisBackend+{scheme}://{rest}", set_as_current=False)
    app.maskmill, app.maskmill_primary = settings, Primary(settings.redis)
    broker = _broker(settings, client_name, app.maskmill_primary)
    for options in (broker, _tasks(settings), _worker(settings), _results(settings)):
        app.conf.update(options)
    return app


def _broker(settings: Settings, client_name: str, primary: Primary) -> dict[str, Any]:
    redis, lease = settings.redis, settings.engine.lease_seconds
    return {
        "broker_transport": f"{admission.__name__}:Transport",  # admits only valid chunk messages
        "broker_transport_options": {
            "primary": primary,  # also behind Sentinels there is one broker URL: see `admission.Channel`
            "visibility_timeout": lease,  # `worker.consumer.lease` renews it; chunks may take longer
            "unacked_restore_interval": max(1, lease // 12),  # with the next line: restore expired messages every 10 s
            "unacked_restore_throttle": 1,  # instead of every 100 s
            "unacked_restore_limit": 100,  # a large backlog must not block the event loop
            "unacked_mutex_expire": max(2, lease // 4),  # if a process dies while restoring, others take over soon
            "socket_timeout": redis.timeout_seconds,  # a dead connection must never block the event loop
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,  # detects half-open connections within 21 s
            "priority_steps": [0],  # one Redis list per queue
            "queue_order_strategy": "priority",  # serve the express queue first
            # Without a prefix of its own, the shortest visibility timeout of all apps on this Redis would apply.
            "global_keyprefix": redis.prefix,
            "client_name": client_name,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # retry without limit; the default gives up after 46 minutes
        "broker_channel_error_retry": True,  # READONLY, UNBLOCKED and OOM replies must not stop the worker
        "broker_pool_acquire_timeout": 30,
    }


def _tasks(settings: Settings) -> dict[str, Any]:
    return {
        # Direct queues on the default exchange: a restored message never loses its route.
        "task_default_queue": redis_keys.QUEUE,
        "task_queues": [_direct_queue(name) for name in redis_keys.QUEUES],
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_compression": "zlib",  # keys of one folder compress well
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,  # the ledger's count of attempts ends redelivery loops
        "task_acks_on_timeout": False,  # for the same reason
        "task_acks_on_failure": True,
        "task_track_started": True,
        # A last resort: `worker.consumer.watchdog` kills a model process without progress long before.
        "task_time_limit": settings.worker.image_time_limit_seconds * (MAX_CHUNK_IMAGES + 1),
        "task_send_sent_event": False,
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        "worker_pool": "prefork",  # the only pool that survives segfaults, OOM kills and hangs of native code
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": False,
        "worker_lost_wait": 1.0,  # short: the ledger already has what a killed process might still have sent
        "worker_proc_alive_timeout": 180,  # a restarted process loads its model first; the default kills it after 4 s
        # After a lost connection, repeating images costs less than reloading the model.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_soft_shutdown_timeout": 0,
        "worker_deduplicate_successful_tasks": True,
        "worker_max_memory_per_child": settings.worker.max_memory_mib and settings.worker.max_memory_mib * 1024,
        "worker_send_task_events": True,  # three small events per chunk; when off, Flower cannot switch them on
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def _results(settings: Settings) -> dict[str, Any]:
    redis = settings.redis
    return {
        "result_backend_always_retry": True,  # otherwise a brief outage raises inside Celery's bookkeeping
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_transport_options": {
            "global_keyprefix": redis.prefix,
            "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.5, "interval_max": 2},
        },
        "redis_socket_timeout": redis.timeout_seconds,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": 25,
        "result_expires": settings.jobs.result_minutes * 60,
        "result_extended": False,
    }


def _direct_queue(name: str) -> Queue:
    return Queue(name, Exchange("", type="direct"), routing_key=name)  # type: ignore[no-untyped-call]


PUBLISH_BATCH = 500
"""Messages per round trip."""


def publish(app: Celery, messages: Iterable[ChunkMessage], *, queue: str = redis_keys.QUEUE) -> int:
    """Send chunk messages to a queue, in batches.

    Returns:
        Number of messages sent.

    Raises:
        BrokerUnavailable: Redis became unavailable. Messages of the last batch may or may not have been delivered;
            sending them again is harmless, because task ids and the ledger make chunks idempotent.
    """
    sent = 0
    try:
        with app.producer_pool.acquire(block=True) as producer, producer.batch(PUBLISH_BATCH):
            for message in messages:
                app.send_task(
                    redis_keys.TASK_CHUNK,
                    args=[message.model_dump(mode="json")],
                    task_id=redis_keys.task_id(message.job, message.epoch, message.chunk),
                    queue=queue,
                    producer=producer,
                    retry=False,  # retries would turn batching off
                    add_to_parent=False,
                    argsrepr=f"({message.job!r}, chunk {message.chunk})",  # shown in Flower; the default is long
                    kwargsrepr="{}",
                )
                sent += 1
    except (OperationalError, BatchPublishError, RedisError, OSError) as error:
        why = error.__cause__ if isinstance(error, BatchPublishError) else error
        raise BrokerUnavailable(f"the queue cannot be reached: {why}") from error
    return sent
