"""Monitoring of a real run: Prometheus has data for every panel of every dashboard, and KEDA's formula scales to it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from support import commands, grafana_dashboards, validators
from support.validators import INFRA
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.dispatcher import WINDOW_PER_WORKER
from worker.standalone import ports

IMAGES = 200


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression: str, since: float) -> list[float]:
        """Return every number that a graph of the expression shows from `since` to now."""
        found = self.get("query_range", query=expression, start=since, end=time.time(), step=0.5)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if not math.isnan(value)]


@contextmanager
def scraping(target: int, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the project's alerts; it scrapes a port twice a second."""
    program = validators.need("prometheus", "prometheus")
    configuration = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text("utf-8"))
    [job] = [job for job in configuration["scrape_configs"] if job["job_name"] == "maskmill-worker"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    configuration["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    configuration |= {"scrape_configs": [job], "rule_files": [str(INFRA / "prometheus" / "alerts.yml")]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = ports.choose({"prometheus": (0,)})["prometheus"]
    options = [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml", *options], env=dict(os.environ), stdout=log, stderr=log
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(20)


COUNTED_BY = {"none": None, "list": "LLEN", "hash": "HLEN", "set": "SCARD"}


def pods_wanted(ledger: Ledger) -> int:
    """Return the value of the ScaledObject's formula; each key counts by its type, as in KEDA's Redis scaler."""
    text = (INFRA / "helm" / "maskmill" / "templates" / "scaledobject.yaml").read_text("utf-8")
    redis, prefix = ledger.connection.client, ledger.connection.prefix
    values = {}
    for name, key in re.findall(r'\(dict "name" "(\w+)" "key" "([\w-]+)"\)', text):
        command = COUNTED_BY[redis.type(f"{prefix}{key}")]
        values[name] = redis.execute_command(command, f"{prefix}{key}") if command else 0
    [formula] = re.findall(r'formula: "(.*)"', text)
    assert formula == "queued + express + in_work + (jobs > 0 ? 1 : 0)" and len(values) == 4
    return values["queued"] + values["express"] + values["in_work"] + (1 if values["jobs"] > 0 else 0)


def photos(folder: Path) -> Path:
    """Write `IMAGES` copies of one picture and a file that is not a picture; return the folder."""
    folder.mkdir()
    # Noise slows decoding and encoding, so that Prometheus sees the job while it runs.
    noise = np.random.default_rng(1).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0.jpg")
    for number in range(1, IMAGES):
        (folder / f"{number}.jpg").hardlink_to(folder / "0.jpg")
    (folder / "00.jpg").write_bytes(b"no picture")
    return folder


def test_every_panel_has_data_and_the_fleet_scales_with_the_work(installation, ledger, tmp_path, worker_log):
    port = ports.choose({"metrics": (0,)})["metrics"]
    settings = installation.environment | {
        "MASKMILL_METRICS__PORT": str(port),
        "MASKMILL_ENGINE__LEASE_SECONDS": "4",  # renewed every second
        "MASKMILL_JOBS__CHUNK_IMAGES": "8",
    }
    since = time.time()
    submitted = commands.run(
        "producer",
        "submit",
        str(photos(tmp_path / "photos")),
        f"s3://{installation.bucket}/m/",
        "--json",
        settings=settings,
    )
    job = submitted.lines[0]["job"]
    assert pods_wanted(ledger) == 1 + WINDOW_PER_WORKER  # starts nodes in an empty fleet
    wanted = []

    def finished() -> bool:
        wanted.append(pods_wanted(ledger))
        return ledger.view(job).status is JobStatus.FINISHED

    with scraping(port, tmp_path) as prometheus, commands.workers(settings, worker_log):
        commands.wait_for(finished, "the job to finish")
        done = 'count_over_time(maskmill_images_total{outcome="ok"}[1m])'
        commands.wait_for(
            lambda: (
                max(prometheus.numbers("sum(maskmill_images_total)", since), default=0) == IMAGES + 1
                and max(prometheus.numbers(done, since), default=0) > 3
            ),
            "the last scrapes",
            10,
        )

        empty = [
            str(expression)
            for expression in grafana_dashboards.expressions()
            if not prometheus.numbers(expression.without_variables("4s"), since)
        ]
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert not empty
    # Positive while work is left, zero when none is.
    assert min(wanted[:-1]) > 0 and pods_wanted(ledger) == 0
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
