"""Keys of an instance role are renewed before they expire, and when S3 refuses them. boto3 asks a local service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from support.instance_role import InstanceRole
from support.misbehaving_s3 import MisbehavingS3, Mode
from worker.contract.errors import CredentialsRefused
from worker.contract.s3url import S3Url
from worker.contract.storage import s3_credentials
from worker.contract.storage.s3 import ObjectStore

URL = S3Url("b", "photo.jpg")


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Iterator[InstanceRole]:
    monkeypatch.setattr(s3_credentials, "LOOK_SECONDS", 0.0)
    with InstanceRole() as role:
        for name, value in role.environment().items():
            monkeypatch.setenv(name, value)
        yield role


@pytest.fixture
def server(role: InstanceRole) -> Iterator[MisbehavingS3]:
    with MisbehavingS3(Mode(accepts=role.accepts)) as server:
        server.put("b/photo.jpg")
        yield server


@pytest.fixture
def store(server: MisbehavingS3) -> Iterator[ObjectStore]:
    with ObjectStore(server.settings(access_key_id=None, secret_access_key=None)) as store:
        yield store


def step(role: InstanceRole, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put all clocks ahead, that of botocore too."""
    role.ahead += seconds
    credentials = store._client._request_signer._credentials
    monkeypatch.setattr(credentials, "_time_fetcher", lambda: datetime.fromtimestamp(role.now(), UTC))
    now = "botocore.utils.get_current_datetime"
    monkeypatch.setattr(now, lambda: datetime.fromtimestamp(role.now(), UTC).replace(tzinfo=None))


def test_keys_are_renewed_before_they_expire(role, store, monkeypatch):
    store.head(URL)

    step(role, store, monkeypatch, 2_800)  # of 3,600
    store.head(URL)
    assert len(role.issued) == 2
    step(role, store, monkeypatch, 900)

    assert store.get(URL, max_bytes=10)[0] == b"x"
    assert role.now() > role.issued[0][2], "the first keys are still valid: the test proves nothing"
    assert role.refused == 0


def test_no_question_needs_the_first_version_of_the_service(role, store):
    store.head(URL)

    first, *others = role.requests
    assert first == ("PUT", "/latest/api/token", 200)
    assert others and {status for _, _, status in others} == {200}, "a request had no token"


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.head(URL),
        lambda store: store.get(URL, max_bytes=10),
        lambda store: store.put(URL, b"y", content_type="image/jpeg"),
        lambda store: list(store.list(S3Url("b", ""))),
        lambda store: store.probe(),
    ],
    ids=["head", "get", "put", "list", "probe"],
)
def test_keys_that_expire_early_are_renewed_within_the_request(role, store, use):
    """By its clock, botocore would use them on: the service says that they live for an hour."""
    store.head(URL)
    with role.lock:
        role.issued[-1] = (*role.issued[-1][:2], role.now())

    use(store)

    assert role.refused >= 1 and len(role.issued) == 2


def test_renewed_keys_get_one_attempt_more(role, server):
    """The refusal may come at the last attempt, after others to which S3 did not answer."""
    with ObjectStore(server.settings(access_key_id=None, secret_access_key=None, attempts=1)) as store:
        store.head(URL)
        began = time.monotonic()
        with role.lock:
            role.issued[-1] = (*role.issued[-1][:2], role.now())

        assert not store.keys_changed_since(began)
        assert store.get(URL, max_bytes=10)[0] == b"x"
        assert store.keys_changed_since(began)


@pytest.mark.parametrize("trouble", ["frozen", "silent"])
def test_without_new_keys_the_process_is_refused_until_there_are_some(role, store, trouble):
    store.head(URL)
    role.ahead += role.seconds
    setattr(role, trouble, True)

    with pytest.raises(CredentialsRefused, match="ExpiredToken; check the credentials of this process"):
        store.get(URL, max_bytes=10)
    with pytest.raises(CredentialsRefused):
        store.probe()
    setattr(role, trouble, False)

    store.probe()
    assert store.get(URL, max_bytes=10)[0] == b"x"


def test_a_role_whose_service_was_away_at_the_start_is_found_later(role, server):
    """A machine may start its workers before its network."""
    role.silent = True
    with ObjectStore(server.settings(access_key_id=None, secret_access_key=None)) as store:
        for _ in range(2):
            with pytest.raises(CredentialsRefused, match="no S3 credentials"):
                store.probe()
        role.silent = False

        store.probe()
        assert store.get(URL, max_bytes=10)[0] == b"x"
        with role.lock:  # from now on as any other keys of a role
            role.issued[-1] = (*role.issued[-1][:2], role.now())
        assert store.get(URL, max_bytes=10)[0] == b"x"


def test_many_refused_requests_ask_the_service_once(role, store, monkeypatch):
    store.head(URL)
    monkeypatch.setattr(s3_credentials, "LOOK_SECONDS", 60.0)
    role.ahead += role.seconds
    role.frozen = True
    asked = len(role.requests)

    for _ in range(5):
        with pytest.raises(CredentialsRefused):
            store.get(URL, max_bytes=10)

    assert len(role.requests) - asked == 3, "the token, the role and its keys"


def test_a_request_that_was_under_way_takes_the_keys_that_another_has_renewed(role, store, server):
    store.head(URL)
    refused = store._renewal.keys()
    with role.lock:
        role.issued[-1] = (*role.issued[-1][:2], role.now())
    store.head(URL)
    asked = len(role.requests)

    assert store._renewal.renew(refused)

    assert len(role.requests) == asked
