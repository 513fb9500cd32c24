"""Workers and producers with the least privileges: a Redis user for each, TLS, an S3 allow-list, all output kept."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import commands
from support.fault_timing import FAST
from support.installation import load_settings
from support.node_processes import Node
from support.redis_users import PRODUCER, WORKER, SecuredRedis, secured_redis
from support.small_jobs import picture
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports
from worker.standalone.services import Standalone


@dataclass(frozen=True)
class SecuredInstallation:
    """Redis, a node, the settings of both users, and the output of all commands."""

    redis: SecuredRedis
    bucket: str
    node: Node
    worker_log: Path
    producer: dict[str, str]
    worker: dict[str, str]
    output: list[str] = field(default_factory=list)

    def run(self, *args: str) -> commands.Result:
        """Run `producer` as its own user and keep its output."""
        done = commands.run("producer", *args, settings=self.producer)
        self.output.extend((done.out, done.err))
        return done

    def url(self, folder: str) -> str:
        return f"s3://{self.bucket}/{folder}/"

    def submit(self, folder: str, *args: str) -> str:
        """Run a job from `in/good/` to its end; return its id."""
        done = self.run("submit", self.url("in/good"), self.url(f"out/{folder}"), "--wait", "--json", *args)
        assert done.code == 0, (done.out, done.err, self.worker_log.read_text()[-3000:])
        return json.loads(done.out.splitlines()[0])["job"]

    @property
    def metrics_port(self) -> int:
        return int(self.worker["MASKMILL_METRICS__PORT"])


@pytest.fixture(scope="package")
def secured(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredInstallation]:
    folder, bucket = tmp_path_factory.mktemp("secured"), f"t{secrets.token_hex(4)}"
    s3 = {name: value for name, value in standalone.environment().items() if "S3" in name}
    port = ports.choose({"metrics": (0,)})["metrics"]
    with secured_redis(folder / "redis") as redis:
        allow = {"MASKMILL_S3__ALLOW": json.dumps([f"{bucket}/in/", f"{bucket}/out/"])}
        more = FAST | cache | {"MASKMILL_METRICS__PORT": str(port), "MASKMILL_WORKER__LOG_LEVEL": "DEBUG"}
        worker = s3 | redis.environment(WORKER) | allow | more
        producer = s3 | redis.environment(PRODUCER) | FAST
        with ObjectStore(load_settings(s3).s3) as store:
            store.ensure_bucket(bucket)
            for index in range(6):
                store.put(S3Url(bucket, f"in/good/{index}.png"), picture(), content_type="image/png")
            store.put(S3Url(bucket, "private/payroll.png"), picture(), content_type="image/png")
        log = folder / "worker.log"
        with commands.workers(worker, log) as supervisor:
            commands.wait_for(lambda: "event=model_loaded" in log.read_text(), "the model", 90)
            yield SecuredInstallation(redis, bucket, Node(supervisor.pid), log, producer, worker)
