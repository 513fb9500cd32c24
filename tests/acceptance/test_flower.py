"""An unmodified Flower shows the chunks as tasks, also behind Sentinels and after a failover."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from support import commands
from support.installation import Installation
from support.sentinels import sentinel_set
from support.shared_workers import installation_at
from worker.standalone import ports


@contextlib.contextmanager
def flower(installation: Installation, folder: Path) -> Iterator[Callable[[str], Any]]:
    """Run Flower during the block; the value returns the answer to a request, None if there is none."""
    port = ports.choose({"flower": (0,)})["flower"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str) -> Any:
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    with Path(folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"],
            env=commands.environment(installation.environment) | {"FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=log,
            stderr=log,
        )
    try:
        yield get
    finally:
        process.terminate()
        process.wait(20)


def see_a_chunk(installation: Installation, get: Callable[[str], Any], folder: Path) -> None:
    """Run jobs until Flower shows a finished chunk of one. It sees only tasks that run after it has enabled events."""
    (folder / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (200, 200, 200)).save(folder / "photos" / "one.jpg")
    source, dest = str(folder / "photos"), f"s3://{installation.bucket}/flower/"
    known = set(get("/api/tasks") or {})

    def succeeded() -> bool:
        done = commands.run("producer", "submit", source, dest, "--wait", settings=installation.environment)
        assert done.code == 0, done.err
        tasks = get("/api/tasks") or {}
        new = [tasks[name] for name in tasks.keys() - known]
        return any(task["name"] == "maskmill.chunk" and task["state"] == "SUCCESS" for task in new)

    commands.wait_for(succeeded, "Flower to show a finished chunk", 80)


def test_flower_shows_the_chunks(running_installation, tmp_path):
    with flower(running_installation, tmp_path) as get:
        see_a_chunk(running_installation, get, tmp_path)


def test_flower_follows_the_primary(standalone, cache, tmp_path, worker_log):
    with sentinel_set(tmp_path / "redis") as servers:
        installation = installation_at(standalone, servers.url, cache | servers.environment())
        with commands.workers(installation.environment, worker_log), flower(installation, tmp_path) as get:
            see_a_chunk(installation, get, tmp_path)

            servers.fail_over("kill")

            see_a_chunk(installation, get, tmp_path)
