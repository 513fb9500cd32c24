"""The policies in `infra/s3/`, evaluated by the IAM of SeaweedFS, with one user for each policy."""

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
from support.installation import load_settings, new_installation
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.standalone import seaweed
from worker.standalone.services import Standalone

POLICIES = Path(__file__).parents[3] / "infra" / "s3"
BUCKETS = {"PHOTOS": "photos", "MASKS": "masks", "MODELS": "models"}
IN_THE_CLEAR = "NeverInTheClear"
"""Left out, because the IAM of this server does not support `Deny`."""


def policy(name: str, *, without: str = "") -> str:
    """Return a policy with the names of the test's buckets, without one statement."""
    text = (POLICIES / f"{name}-policy.json").read_text("utf-8")
    for placeholder, bucket in BUCKETS.items():
        text = text.replace(placeholder, bucket)
    rules = json.loads(text)
    rules["Statement"] = [one for one in rules["Statement"] if one["Sid"] != without]
    return json.dumps(rules)


@dataclass(frozen=True)
class Users:
    """The services and the keys of each user."""

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
    arguments = seaweed.Seaweed._arguments
    with mock.patch.object(
        seaweed.Seaweed, "_arguments", lambda self, sockets: [*arguments(self, sockets), "-s3.iam.readOnly=false"]
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
    """Jobs from a prefix and from local files, a second run that skips finished images, a retry, and the results."""
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

    text = log.read_text()
    assert [done.code for done in (prefix, again, local, retried)] == [3, 3, 3, 3], (
        prefix.err,
        local.err,
        text[-2000:],
    )
    assert "access_denied" not in text and "AccessDenied" not in text
    assert results.code == 0 and "undecodable" in results.out
    with Ledger(load_settings(producer).redis) as ledger:
        view = ledger.view(job)
    assert (view.status, view.ok, view.failed) == (JobStatus.FINISHED, 1, 1)


@pytest.mark.parametrize(
    ("name", "call", "target"),
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
def test_nothing_else_is_granted(users, name, call, target):
    body = {"Body": b"x"} if call == "put_object" else {}

    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(users.client(name), call)(Bucket=target[0], Key=target[1], **body)


@pytest.mark.parametrize("name", ["worker", "producer"])
@pytest.mark.parametrize("prefix", ["", "private/"])
def test_nothing_else_is_listed(users, name, prefix):
    with pytest.raises(ClientError, match="AccessDenied"):
        users.client(name).list_objects_v2(Bucket="photos", Prefix=prefix)
