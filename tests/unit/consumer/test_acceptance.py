"""The consumer takes no messages while its model process loads its network, or is refused by S3."""

from __future__ import annotations

from types import SimpleNamespace

from kombu import Connection, Consumer, Exchange, Queue

from worker.consumer.acceptance import Acceptance
from worker.contract import redis_keys
from worker.runner.parent_channel import ParentChannel

QUEUES = [Queue(name, Exchange("", type="direct"), routing_key=name) for name in redis_keys.QUEUES]


def test_the_queues_are_cancelled_and_consumed_again():
    channel = ParentChannel()
    app = SimpleNamespace(maskmill_parent_channel=channel, conf=SimpleNamespace(task_queues=QUEUES))
    with Connection("memory://") as connection:
        consumer = Consumer(connection.channel(), QUEUES, on_message=lambda message: None)
        consumer.consume()
        parent = SimpleNamespace(app=app, task_consumer=consumer)
        step, seen = Acceptance(parent), []
        for refused, loaded in (
            (False, True),
            (True, True),
            (True, True),
            (False, True),
            (False, False),
            (False, True),
        ):
            channel.set_refused(refused)
            (channel.set_loaded if loaded else channel.set_loading)()
            step.check(parent)
            seen.append({name for name in redis_keys.QUEUES if consumer.consuming_from(name)})

    both = set(redis_keys.QUEUES)
    assert seen == [both, set(), set(), both, set(), both]
