"""The only maker of a Celery app, for both sides, so that they cannot be configured apart.

Every value that is not Celery's default has its reason beside it. Celery carries the work; it does not guarantee
it: the ledger above it does.
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
from worker.contract.messages import MAX_CHUNK_IMAGES, ChunkMessage
from worker.contract.queue import admission
from worker.contract.settings import Settings


class RedisBackend(StockRedisBackend):  # type: ignore[misc]  # Celery has no types
    """Celery's Redis result backend, which knows every chunk as long as its job is known.

    Results of chunks expire after minutes, or a job of ten million images would fill Redis with them. Who asks later
    gets the answer of the ledger, which holds the outcome of every image in four bits.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing at send time: the stock class would SUBSCRIBE once for each message sent."""

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """State and result of a chunk; of an expired one as the ledger has it."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)
        ours = redis_keys.parse_task_id(task_id) if meta["status"] == states.PENDING else None
        return meta if ours is None else self._from_ledger(*ours) or meta

    def _from_ledger(self, job: str, epoch: int, chunk: int) -> dict[str, Any] | None:
        with Ledger(self.app.maskmill.redis) as ledger:
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
    """A configured app that knows no tasks; the worker registers its own, the producer sends by name.

    Args:
        settings: where Redis is, key prefix, time limits.
        client_name: how the connections call themselves in `CLIENT LIST`.
    """
    redis, lease = settings.redis, settings.engine.lease_seconds
    url = redis.secret_url()
    scheme, rest = url.split("://", 1)
    app = Celery("maskmill", broker=url, backend=f"{__name__}:RedisBackend+{scheme}://{rest}", set_as_current=False)
    app.maskmill = settings
    app.conf.update(
        # -- broker ---------------------------------------------------------------------------------------------
        broker_transport=f"{admission.__name__}:Transport",  # what is no chunk message does not get in
        broker_transport_options={
            "visibility_timeout": lease,  # `worker.consumer.lease` renews it, so chunks may take longer
            "unacked_restore_interval": max(1, lease // 12),  # look for expired leases every 10 s ...
            "unacked_restore_throttle": 1,  # ... and not every 100 s
            "unacked_restore_limit": 100,  # a big backlog must not block the loop
            "unacked_mutex_expire": max(2, lease // 4),  # if the process that restores dies, others take over soon
            "socket_timeout": redis.timeout_seconds,  # a dead path must never hang the loop
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,  # half-open connections are found within 21 s
            "priority_steps": [0],  # one list per queue
            "queue_order_strategy": "priority",  # the express queue first
            "global_keyprefix": redis.prefix,  # the shortest visibility timeout of co-tenants would win otherwise
            "client_name": client_name,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # the default gives up after 46 minutes
        broker_channel_error_retry=True,  # READONLY, UNBLOCKED and OOM replies must not end the worker
        broker_pool_acquire_timeout=30,
        # -- tasks ----------------------------------------------------------------------------------------------
        # Direct queues on the default exchange: restores never lose their routing.
        task_default_queue=redis_keys.QUEUE,
        task_queues=[_direct_queue(name) for name in redis_keys.QUEUES],
        task_create_missing_queues=False,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_compression="zlib",  # keys of one folder shrink a lot
        task_acks_late=True,
        task_reject_on_worker_lost=True,  # loops end at the ledger's count of attempts
        task_acks_on_timeout=False,  # as above
        task_acks_on_failure=True,
        task_track_started=True,
        # A last resort: `worker.consumer.watchdog` ends a child that gets nowhere long before.
        task_time_limit=settings.worker.image_time_limit_seconds * (MAX_CHUNK_IMAGES + 1),
        task_send_sent_event=False,
        # -- worker ---------------------------------------------------------------------------------------------
        worker_pool="prefork",  # the only pool that survives a segfault, an OOM kill or a hang of native code
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=False,
        worker_lost_wait=1.0,  # for a result that a killed child might still have sent: the ledger has it anyway
        worker_proc_alive_timeout=180,  # a restarted child loads its model first; the default kills it after 4 s
        worker_cancel_long_running_tasks_on_connection_loss=False,  # repeating is cheap, reloading the model is not
        worker_enable_prefetch_count_reduction=False,
        worker_soft_shutdown_timeout=0,
        worker_deduplicate_successful_tasks=True,
        worker_max_memory_per_child=settings.worker.max_memory_mib and settings.worker.max_memory_mib * 1024,
        worker_send_task_events=True,  # three small events per chunk; without, Flower could not even switch them on
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # -- result backend -------------------------------------------------------------------------------------
        result_backend_always_retry=True,  # or one blip raises out of Celery's own bookkeeping
        result_backend_max_sleep_between_retries_ms=2000,
        result_backend_transport_options={
            "global_keyprefix": redis.prefix,
            "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.5, "interval_max": 2},
        },
        redis_socket_timeout=redis.timeout_seconds,
        redis_socket_connect_timeout=5,
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
        redis_backend_health_check_interval=25,
        result_expires=settings.jobs.result_minutes * 60,
        result_extended=False,
    )
    return app


def _direct_queue(name: str) -> Queue:
    return Queue(name, Exchange("", type="direct"), routing_key=name)  # type: ignore[no-untyped-call]


PUBLISH_BATCH = 500
"""Messages in one round trip."""


def publish(app: Celery, messages: Iterable[ChunkMessage], *, queue: str = redis_keys.QUEUE) -> int:
    """Send chunk messages by task name to one queue, in batches.

    Returns:
        How many were sent.

    Raises:
        BrokerUnavailable: Redis went away; messages of the last batch may or may not have been delivered. Task ids
            and the ledger make sending them again harmless.
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
                    retry=False,  # a retry inside a batch would switch batching off
                    add_to_parent=False,
                    argsrepr=f"({message.job!r}, chunk {message.chunk})",  # for people in Flower; the default is long
                    kwargsrepr="{}",
                )
                sent += 1
    except (OperationalError, BatchPublishError, RedisError, OSError) as error:
        why = error.__cause__ if isinstance(error, BatchPublishError) else error
        raise BrokerUnavailable(f"the queue cannot be reached: {why}") from error
    return sent
