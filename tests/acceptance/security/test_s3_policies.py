"""The policies of `infra/s3/`, evaluated by a real server: SeaweedFS with its IAM, a user for each of the two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from support import commands
from support.stack import new_installation
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.standalone import seaweed
from worker.standalone.services import Standalone

POLICIES = Path(__file__).parents[3] / "infra" / "s3"
BUCKETS = {"PHOTOS": "photos", "MASKS": "masks", "MODELS": "models"}
IN_THE_CLEAR = "NeverInTheClear"
"""Left out here: this server's IAM knows no `Deny`."""


def policy(name: str, *, without: str = "") -> str:
    text = (POLICIES / f"{name}-policy.json").read_text("utf-8")
    for placeholder, bucket in BUCKETS.items():
        text = text.replace(placeholder, bucket)
    rules = json.loads(text)
    rules["Statement"] = [one for one in rules["Statement"] if one["Sid"] != without]
    return json.dumps(rules)


@dataclass(frozen=True)
class Users:
    """The services, and how each user reaches them."""

    environment: dict[str, str]
    keys: dict[str, tuple[str, str]]

    def settings(self, name: str) -> dict[str, str]:
        access, secret = self.keys[name]
        return self.environment | {
            "MASKMILL_S3__ACCESS_KEY_ID": access,
            "MASKMILL_S3__SECRET_ACCESS_KEY": secret,
        }

    def client(self, name: str, service: str = "s3") -> Any:
        access, secret = self.keys[name]
        return boto3.client(
            service,
            endpoint_url=self.environment["MASKMILL_S3__ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def add(self, name: str, rules: str) -> None:
        iam = self.client("root", "iam")
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=rules)
        self.keys[name] = made["AccessKeyId"], made["SecretAccessKey"]


@pytest.fixture(scope="module")
def users(tmp_path_factory, cache) -> Iterator[Users]:
    plain = seaweed.Seaweed._arguments
    with mock.patch.object(
        seaweed.Seaweed, "_arguments", lambda self, sockets: [*plain(self, sockets), "-s3.iam.readOnly=false"]
    ):
        services = Standalone(tmp_path_factory.mktemp("policies"))
        services.start()
    try:
        environment = new_installation(services).environment | cache
        root = environment["MASKMILL_S3__ACCESS_KEY_ID"], environment["MASKMILL_S3__SECRET_ACCESS_KEY"]
        found = Users(environment, {"root": root})
        for bucket in (*BUCKETS.values(), "other"):
            found.client("root").create_bucket(Bucket=bucket)
        for name in ("producer", "worker"):
            found.add(name, policy(name, without=IN_THE_CLEAR))
        found.client("root").put_object(Bucket="photos", Key="private/a.jpg", Body=b"x")
        yield found
    finally:
        services.stop()


def test_a_job_needs_no_more_than_the_policies_grant(users, tmp_path):
    """From a prefix and from local files, the second time skipping what is done, with retry and lists at the end."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 48), (200, 210, 90)).save(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    for path in (tmp_path / "photos").iterdir():
        users.client("root").put_object(Bucket="photos", Key=f"in/{path.name}", Body=path.read_bytes())
    producer, log = users.settings("producer"), tmp_path / "worker.log"

    def run(*args: str) -> commands.Result:
        return commands.run("producer", *args, settings=producer, cwd=tmp_path)

    with commands.workers(users.settings("worker"), log):
        prefix = run("submit", "s3://photos/in/", "s3://masks/out/prefix/", "--wait", "--json")
        again = run("submit", "s3://photos/in/", "s3://masks/out/prefix/", "--wait", "--json")
        local = run("submit", "photos", "s3://masks/out/local/", "--wait", "--json")
        job = prefix.lines[0]["job"]
        retried = run("retry", job, "--failed", "--wait", "--json")
        results = run("results", job)

    said = log.read_text()
    assert [done.code for done in (prefix, again, local, retried)] == [3, 3, 3, 3], (
        prefix.err,
        local.err,
        said[-2000:],
    )
    assert "access_denied" not in said and "AccessDenied" not in said
    assert results.code == 0 and "undecodable" in results.out
    with Ledger(fresh_settings(producer)) as ledger:
        view = ledger.view(job)
    assert (view.status, view.ok, view.failed) == (JobStatus.FINISHED, 1, 1)


def fresh_settings(environment: dict[str, str]) -> Any:
    from worker.contract import settings

    with mock.patch.dict("os.environ", environment):
        return settings.load().redis


@pytest.mark.parametrize(
    ("name", "call", "place"),
    [
        ("worker", "put_object", ("photos", "in/a.jpg")),
        ("worker", "delete_object", ("photos", "in/a.jpg")),
        ("worker", "get_object", ("photos", "private/a.jpg")),
        ("worker", "put_object", ("masks", "elsewhere/a.png")),
        ("worker", "delete_object", ("masks", "out/prefix/a.png")),
        ("worker", "get_object", ("other", "a")),
        ("producer", "put_object", ("photos", "in/a.jpg")),
        ("producer", "put_object", ("masks", "out/prefix/a.png")),
        ("producer", "delete_object", ("masks", "out/prefix/a.png")),
        ("producer", "get_object", ("photos", "private/a.jpg")),
        ("producer", "get_object", ("other", "a")),
    ],
)
def test_nothing_else_is_granted(users, name, call, place):
    body = {"Body": b"x"} if call == "put_object" else {}

    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(users.client(name), call)(Bucket=place[0], Key=place[1], **body)


@pytest.mark.parametrize("name", ["worker", "producer"])
@pytest.mark.parametrize("prefix", ["", "private/"])
def test_nothing_else_is_listed(users, name, prefix):
    with pytest.raises(ClientError, match="AccessDenied"):
        users.client(name).list_objects_v2(Bucket="photos", Prefix=prefix)
