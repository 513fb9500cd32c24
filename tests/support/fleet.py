"""Many consumers that stand for workers, in one process: each takes one message, keeps it, and looks for lost ones.

    python -m support.fleet NUMBER

Their connections and sweeps are kombu's own, with the product's settings; what they lack is a model to run. They end
with the process, as workers do that are killed.
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
    """A fleet of so many; kill it."""
    more = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "support.fleet", str(number)], env=commands.environment(installation.environment | more)
    )


def main(number: int) -> None:
    """Until killed."""
    config = settings.load()
    threads = [threading.Thread(target=consume, args=(config,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def consume(config: settings.Settings) -> None:
    """One worker: holds one message at most, sweeps whenever nothing comes."""
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
