"""Rights of the users in `infra/redis/users.acl`. Acceptance tests run a whole job as these users."""

from __future__ import annotations

import contextlib
import re
from importlib import resources

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.redis_users import ADMIN, MONITOR, PREFIX, PRODUCER, WORKER, SecuredRedis
from worker.contract import redis_keys

READING_SCRIPTS = ("read", "members", "newest")
PRODUCER_SCRIPTS = (
    *("renew_listing", "seal", "control", "reopen", "reset", "restore", "resume", "take", "untake"),
    "deactivate",
    *READING_SCRIPTS,
)
WORKER_SCRIPTS = (
    *("start", "begin", "record", "release", "record_death", "store_failure", "control"),
    *("take", "untake", "take_lost", "settle", "close", "tidy", "prune", "pending", "silent", "messages"),
    *("primary", "touch", "recheck", "delete_pending", "deactivate"),
    *READING_SCRIPTS,
)

FORBIDDEN = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("EVAL", "return 1", "0"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "me", "on", "nopass", "+@all"),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SHUTDOWN",),
    ("SAVE",),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
    ("MODULE", "LIST"),
    ("SWAPDB", "0", "1"),
    ("GET", "other:secret"),
    ("SET", "other:secret", "x"),
    ("DEL", "other:secret"),
    ("LPUSH", "images", "x"),
    ("RENAME", f"{PREFIX}jobs", "other:jobs"),
    ("MIGRATE", "elsewhere", "6379", f"{PREFIX}jobs", "0", "100"),
    ("DUMP", f"{PREFIX}jobs"),
    ("PUBLISH", "other:channel", "x"),
    ("SUBSCRIBE", "other:channel"),
)

FORBIDDEN_TO_PRODUCERS = (
    ("BRPOP", f"{PREFIX}images", "1"),
    ("RPOP", f"{PREFIX}images"),
    ("LRANGE", f"{PREFIX}images", "0", "-1"),
    ("HVALS", f"{PREFIX}unacked"),
    ("HDEL", f"{PREFIX}unacked", "tag"),
    ("ZADD", f"{PREFIX}workers", "1", "me"),
    ("HSET", f"{PREFIX}worker-facts", "me", "{}"),
    ("SET", f"{PREFIX}leader:feed", "me"),
    ("SET", f"{PREFIX}celery-task-meta-job.0.0", "{}"),
    ("PUBLISH", f"{PREFIX}/0.celery.pidbox", "shutdown"),
    ("PUBLISH", f"{PREFIX}celery-task-meta-job.0.0", "x"),
    ("SUBSCRIBE", f"{PREFIX}/0.celeryev/worker.#"),
)


@pytest.fixture
def admin(secured: SecuredRedis):
    with secured.client(ADMIN) as client:
        yield client


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        (WORKER, FORBIDDEN),
        (PRODUCER, FORBIDDEN + FORBIDDEN_TO_PRODUCERS),
        (MONITOR, (*FORBIDDEN, *FORBIDDEN_TO_PRODUCERS, ("GET", f"{PREFIX}jobs"), ("SET", f"{PREFIX}jobs", "x"))),
    ],
)
def test_commands_that_a_user_does_not_need_are_refused(secured, user, commands):
    granted = []
    with secured.client(user) as client:
        for command in commands:
            with contextlib.suppress(redis.exceptions.NoPermissionError):
                granted.append((command, client.execute_command(*command)))

    assert granted == []


def test_a_client_without_login_is_refused(secured):
    own = secured.certificates.client
    with (
        redis.Redis(
            "localhost",
            secured.tls_port,
            ssl=True,
            ssl_ca_certs=str(secured.certificates.authority),
            ssl_certfile=str(own.certificate),
            ssl_keyfile=str(own.key),
            retry=Retry(NoBackoff(), 0),
        ) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize(("user", "scripts"), [(PRODUCER, PRODUCER_SCRIPTS), (WORKER, WORKER_SCRIPTS)])
def test_every_command_of_the_scripts_is_granted(admin, user, scripts):
    """Includes commands in rarely used branches. Keys do not matter: a user may access all keys of a job."""
    folder = resources.files("worker.contract.ledger") / "lua"
    refused = set()
    for script in ("head", *scripts):
        text = (folder / f"{script}.lua").read_text("utf-8")
        for command in set(re.findall(r"redis\.p?call\('(\w+)'(?:, '(USAGE)')?", text)):
            answer = _dry_run(admin, user, *filter(None, command))
            if "no permissions" in answer:
                refused.add((script, command, answer))
    assert not refused


def _dry_run(admin: redis.Redis, user: str, *command: str) -> str:
    key = redis_keys.job(PREFIX, "job")
    for count in range(5):
        try:
            return str(admin.execute_command("ACL", "DRYRUN", user, *command, key, *["1"] * count))
        except redis.ResponseError as error:
            if "arguments" not in str(error):  # the number of arguments is wrong: try the next one
                raise
    return str(admin.execute_command("ACL", "DRYRUN", user, *command))


def test_every_script_belongs_to_a_user():
    folder = resources.files("worker.contract.ledger") / "lua"
    found = {entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")}

    assert found == {"head", *PRODUCER_SCRIPTS, *WORKER_SCRIPTS}
