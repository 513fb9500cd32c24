"""An unmodified Flower shows the chunks as tasks."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

from support import commands
from worker.standalone import ports


def test_flower_shows_the_chunks(running_installation, tmp_path):
    port = ports.choose({"flower": (0,)})["flower"]
    Image.new("RGB", (64, 64), (200, 200, 200)).save(tmp_path / "one.jpg")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def tasks() -> dict[str, dict]:
        try:
            with opener.open(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            return {}

    def succeeded() -> bool:
        """Run a job. Flower sees only tasks that run after it has enabled events, so this repeats until it sees one."""
        source, dest = str(tmp_path), f"s3://{running_installation.bucket}/flower/"
        done = commands.run("producer", "submit", source, dest, "--wait", settings=running_installation.environment)
        assert done.code == 0, done.err
        return any(t["name"] == "maskmill.chunk" and t["state"] == "SUCCESS" for t in tasks().values())

    with Path(tmp_path / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"],
            env=commands.environment(running_installation.environment) | {"FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=log,
            stderr=log,
        )
    try:
        commands.wait_for(succeeded, "Flower to show a finished chunk", 80)
    finally:
        flower.terminate()
        flower.wait(20)
