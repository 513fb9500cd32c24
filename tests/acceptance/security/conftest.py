"""Workers and producers with least rights: Redis over TLS with a user for each, S3 behind an allow-list, all logged."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest

from support import commands
from support.faults import FAST, Node, picture
from support.redis_users import PRODUCER, WORKER, SecuredRedis, secured_redis
from worker.contract import settings
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports
from worker.standalone.services import Standalone


@dataclass(frozen=True)
class Secured:
    """What runs, and all that was said."""

    redis: SecuredRedis
    bucket: str
    node: Node
    worker_log: Path
    producer: dict[str, str]
    worker: dict[str, str]
    said: list[str] = field(default_factory=list)

    def settings(self, environment: dict[str, str]) -> Settings:
        with mock.patch.dict(os.environ, environment):
            return settings.load()

    def run(self, *args: str) -> commands.Result:
        """`producer`, as its own user; what it prints is kept."""
        done = commands.run("producer", *args, settings=self.producer)
        self.said.extend((done.out, done.err))
        return done

    def url(self, folder: str) -> str:
        return f"s3://{self.bucket}/{folder}/"

    def submit(self, folder: str, *args: str) -> str:
        """The id of a job from `in/good/` that has ended."""
        done = self.run("submit", self.url("in/good"), self.url(f"out/{folder}"), "--wait", "--json", *args)
        assert done.code == 0, (done.out, done.err, self.worker_log.read_text()[-3000:])
        return json.loads(done.out.splitlines()[0])["job"]

    @property
    def metrics_port(self) -> int:
        return int(self.worker["MASKMILL_METRICS__PORT"])


@pytest.fixture(scope="package")
def secured(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder, bucket = tmp_path_factory.mktemp("secured"), f"t{secrets.token_hex(4)}"
    s3 = {name: value for name, value in standalone.environment().items() if "S3" in name}
    port = ports.choose({"metrics": (0,)})["metrics"]
    with secured_redis(folder / "redis") as redis:
        allow = {"MASKMILL_S3__ALLOW": json.dumps([f"{bucket}/in/", f"{bucket}/out/"])}
        more = FAST | cache | {"MASKMILL_METRICS__PORT": str(port), "MASKMILL_WORKER__LOG_LEVEL": "DEBUG"}
        worker = s3 | redis.environment(WORKER) | allow | more
        producer = s3 | redis.environment(PRODUCER) | FAST
        with mock.patch.dict(os.environ, s3), ObjectStore(settings.load().s3) as store:
            store.ensure_bucket(bucket)
            for index in range(6):
                store.put(S3Url(bucket, f"in/good/{index}.png"), picture(), content_type="image/png")
            store.put(S3Url(bucket, "private/payroll.png"), picture(), content_type="image/png")
        log = folder / "worker.log"
        with commands.workers(worker, log) as supervisor:
            commands.wait_for(lambda: "event=model_loaded" in log.read_text(), "the model", 90)
            yield Secured(redis, bucket, Node(supervisor.pid), log, producer, worker)
