"""Keys for S3 change while a process runs: in the files of `MASKMILL_SECRETS_DIR`, and from the role of an instance."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.loopback import LoopbackServer, QuietHandler
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from worker.contract import settings
from worker.contract.errors import CredentialsRefused
from worker.contract.s3url import S3Url
from worker.contract.storage import s3_credentials
from worker.contract.storage.s3 import ObjectStore

PLACE = S3Url("b", "in/1.jpg")


@pytest.fixture
def server():
    with MisbehavingS3() as server:
        server.put("b/in/1.jpg")
        yield server


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("MASKMILL_SECRETS_DIR", str(folder))
    monkeypatch.setattr(s3_credentials, "LOOK_SECONDS", 0)
    return folder


def write(folder: Path, key: str) -> None:
    """Replace the files, as a mounted secret is replaced."""
    for name, text in (("ACCESS_KEY_ID", key), ("SECRET_ACCESS_KEY", "secret")):
        new = folder / f".{name}"
        new.write_text(f"{text}\n")
        new.replace(folder / f"MASKMILL_S3__{name}")


def opened(server: MisbehavingS3, monkeypatch) -> ObjectStore:
    for name, value in (("ENDPOINT_URL", server.endpoint_url), ("ADDRESSING_STYLE", "path"), ("ATTEMPTS", "1")):
        monkeypatch.setenv(f"MASKMILL_S3__{name}", value)
    return ObjectStore(settings.load().s3)


def test_rotated_files_are_used_from_the_next_request_on(server, secrets, monkeypatch):
    write(secrets, "old")
    with opened(server, monkeypatch) as store:
        store.head(PLACE)
        server.mode = Mode(refusals=[Refusal(403, "InvalidAccessKeyId", access_key="old")])
        with pytest.raises(CredentialsRefused):
            store.get(PLACE, max_bytes=10)

        write(secrets, "new")

        assert store.get(PLACE, max_bytes=10)[0] == b"x"


def test_a_change_that_is_half_done_keeps_the_old_keys(server, secrets, monkeypatch):
    write(secrets, "old")
    server.mode = Mode(refusals=[Refusal(403, "InvalidAccessKeyId", access_key="new")])
    with opened(server, monkeypatch) as store:
        (secrets / "MASKMILL_S3__SECRET_ACCESS_KEY").unlink()
        (secrets / "MASKMILL_S3__ACCESS_KEY_ID").write_text("new")

        store.head(PLACE)


def test_keys_of_the_environment_do_not_follow_the_files(server, secrets, monkeypatch):
    write(secrets, "file")
    monkeypatch.setenv("MASKMILL_S3__ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("MASKMILL_S3__SECRET_ACCESS_KEY", "environment")
    with opened(server, monkeypatch) as store:
        write(secrets, "other")
        server.mode = Mode(refusals=[Refusal(403, "InvalidAccessKeyId", access_key="other")])

        store.head(PLACE)


class _Role(QuietHandler):
    """The endpoint that ECS and EKS give to a container: it answers with the keys of its role."""

    def do_GET(self) -> None:
        keys = self.server.owner.keys  # type: ignore[attr-defined]
        until = datetime.now(UTC) + timedelta(minutes=self.server.owner.minutes)  # type: ignore[attr-defined]
        body = json.dumps(
            {
                "AccessKeyId": keys,
                "SecretAccessKey": "s",
                "Token": "t",
                "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Role(LoopbackServer):
    keys = "first"
    minutes = 9  # botocore asks again ten minutes before the end


def test_keys_of_a_role_are_renewed(server, monkeypatch):
    with Role(_Role) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{role.endpoint_url}/role")
        with opened(server, monkeypatch) as store:
            store.head(PLACE)
            server.mode = Mode(refusals=[Refusal(403, "ExpiredToken", access_key="first")])
            role.keys = "second"

            store.head(PLACE)


def test_a_role_that_gives_expired_keys_concerns_the_process_and_no_image(server, monkeypatch):
    with Role(_Role) as role:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{role.endpoint_url}/role")
        with opened(server, monkeypatch) as store:
            store.head(PLACE)
            role.minutes = -1

            with pytest.raises(CredentialsRefused, match="keys that this process was given have expired"):
                store.head(PLACE)
            role.minutes = 9
            store.head(PLACE)


def test_new_files_are_read_when_the_old_keys_are_refused(server, secrets, monkeypatch):
    """Between two looks."""
    write(secrets, "old")
    monkeypatch.setenv("MASKMILL_S3__ATTEMPTS", "2")
    with ObjectStore(settings.load().s3.model_copy(update={"endpoint_url": server.endpoint_url})) as store:
        store.head(PLACE)
        monkeypatch.setattr(s3_credentials, "LOOK_SECONDS", 60)
        server.mode = Mode(refusals=[Refusal(403, "InvalidAccessKeyId", access_key="old")])
        write(secrets, "new")

        assert store.get(PLACE, max_bytes=10)[0] == b"x"
