"""Many consumers in one process, in place of workers: each takes one message, keeps it, and restores lost ones.

    python -m support.fleet NUMBER

Their connections and their search for expired leases are kombu's own, with the product's settings. They have no model.
They end with the process, like workers that are killed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from kombu import Consumer

from support import commands
from support.installation import Installation
from worker.contract import settings
from worker.contract.queue.celery_app import make_celery

SWEEP_SECONDS = 1.0


def start(installation: Installation, number: int) -> subprocess.Popen[bytes]:
    """Start a fleet of `number` consumers; kill it."""
    more = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "support.fleet", str(number)], env=commands.environment(installation.environment | more)
    )


def main(number: int) -> None:
    """Run until killed."""
    config = settings.load()
    threads = [threading.Thread(target=consume, args=(config,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def consume(config: settings.Settings) -> None:
    """Be one worker: hold at most one message, and search for expired leases while none arrives."""
    app = make_celery(config, client_name="fleet")
    with app.connection_for_read() as connection, connection.channel() as channel:
        consumer = Consumer(channel, list(app.amqp.queues.values()), accept=["json"])
        consumer.qos(prefetch_count=1)
        held: list[object] = []
        consumer.register_callback(lambda body, message: held.append(message))
        consumer.consume()
        while True:
            try:
                connection.drain_events(timeout=SWEEP_SECONDS)
            except TimeoutError:
                continue


if __name__ == "__main__":
    main(int(sys.argv[1]))
