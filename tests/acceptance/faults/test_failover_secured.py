"""A failover with TLS to all servers and users with few rights on all of them: as an operator of a hospital runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_timing import FAST, IN_FLIGHT, SLOW
from support.installation import Installation, load_settings, make_bucket, new_installation
from support.job_account import progress, settle
from support.redis_users import ADMIN, PRODUCER, WORKER
from support.secured_sentinels import SecuredSentinels, secured_sentinels
from support.shared_workers import SharedWorkers
from worker.contract.errors import MaskmillError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.jobs import Ledger
from worker.standalone.services import Standalone

IMAGES, CHUNK = 40, 5


@pytest.fixture(scope="module")
def secured_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredSentinels]:
    with secured_sentinels(tmp_path_factory.mktemp("redis")) as servers:
        yield servers


@pytest.fixture
def servers(secured_set: SecuredSentinels) -> SecuredSentinels:
    secured_set.heal()
    return secured_set


@pytest.fixture
def installation(standalone: Standalone, cache: dict[str, str], servers: SecuredSentinels) -> Installation:
    """The installation as its workers see it."""
    installation = new_installation(standalone).with_settings(FAST | SLOW | cache | servers.environment_of(WORKER))
    make_bucket(installation)
    return installation


def test_a_job_outlives_its_primary_with_tls_and_users_everywhere(installation, servers, tmp_path):
    producer = installation.environment | servers.environment_of(PRODUCER) | {"MASKMILL_JOBS__CHUNK_IMAGES": str(CHUNK)}
    admin = installation.with_settings(servers.environment_of(ADMIN))
    source, dest = (f"s3://{installation.bucket}/{name}/" for name in ("in", "out"))
    faults = Faults(tmp_path / "faults", image_seconds=0.2)
    with SharedWorkers.start(installation, faults, tmp_path / "worker.log") as workers:
        workers.upload(IMAGES)
        checked = commands.run("worker", "check", "--json", settings=installation.environment)
        failover = next(line for line in checked.lines if line["check"] == "failover")
        assert failover["ok"] and "3 of 3 Sentinels" in failover["text"] and "OK 3 usable" in failover["text"], failover
        submit = ("producer", "submit", source, dest, "--json")
        submitted = commands.run(*submit, settings=producer)
        assert submitted.code == 0, submitted.err
        job = submitted.lines[0]["job"]
        with Ledger(admin.settings.redis) as ledger, workers.surviving():
            assert progress(ledger, job, 3).done < IMAGES

            failed = servers.fail_over("kill")

            followed = commands.run("producer", "watch", job, "--json", settings=producer)
            assert followed.code == 0, followed.err
        account = settle(admin, job, faults)
        assert account.view.ok == account.view.total == IMAGES
        assert account.repeated <= 2 * CHUNK + IN_FLIGHT
        assert "event=primary_changed" in workers.log.read_text(), "nothing failed over: the test proves nothing"
    assert not failed.running
    assert servers.refused_commands() == {}


TLS_FILES = ("MASKMILL_REDIS__CA_FILE", "MASKMILL_REDIS__CERT_FILE", "MASKMILL_REDIS__KEY_FILE")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("MASKMILL_REDIS__CA_FILE", "UNRELATED", "none of the 3 Sentinels answers.*certificate"),
        ("MASKMILL_REDIS__URL", "PLAIN", "none of the 3 Sentinels answers"),
        ("MASKMILL_REDIS__SENTINEL_PASSWORD", "wrong", "a Sentinel of .* denied access"),
        ("MASKMILL_REDIS__PASSWORD", "wrong", "denied access: check MASKMILL_REDIS__USERNAME"),
    ],
    ids=["authority", "plain", "sentinel-password", "password"],
)
def test_without_one_of_the_settings_there_is_no_connection(installation, servers, name, value, error):
    """The job above needs each of them."""
    right = installation.environment
    given = {
        "UNRELATED": str(servers.certificates.unrelated),
        "PLAIN": right["MASKMILL_REDIS__URL"].replace("sentinels://", "sentinel://"),
    }.get(value, value)
    changed = {key: text for key, text in right.items() if value != "PLAIN" or key not in TLS_FILES} | {name: given}

    connection = RedisConnection(load_settings(changed).redis, retries=0, client_name="t")

    with connection, pytest.raises(MaskmillError, match=error):
        connection.call(connection.client.ping)
