"""The ledger across a failover: what is refused, confirmed, created again, and never deleted by mistake."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from support.installation import Installation
from support.sentinels import SentinelSet, sentinel_set
from support.shared_workers import installation_at, own_redis
from support.small_jobs import connected_submitter, upload
from worker.contract.errors import AccessDenied, BrokerUnavailable, SettingsError
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.replication import Replicas, replicas, replicas_wanted
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.settings import RedisSettings
from worker.standalone.services import Standalone

OPTIONS = JobOptions(source=S3Url.folder("s3://bucket/in/"), dest=S3Url.folder("s3://bucket/out/"))
MESSAGE = ChunkMessage(job="job", epoch=0, chunk=0, start=0, keys=("a.png", "b.png"))


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    with sentinel_set(tmp_path_factory.mktemp("redis")) as servers:
        yield servers


@pytest.fixture
def servers(shared_servers: SentinelSet) -> SentinelSet:
    shared_servers.heal()
    return shared_servers


@pytest.fixture
def failing_over(standalone: Standalone, servers: SentinelSet) -> Installation:
    return installation_at(standalone, servers.url, servers.environment())


def changed(installation: Installation, **settings: object) -> RedisSettings:
    return installation.settings.redis.model_copy(update=settings)


def run_one_chunk(ledger: Ledger, job: str = "job") -> Backlog:
    """Create a job of one chunk, and record its first outcome."""
    ledger.create(job, OPTIONS)
    assert ledger.seal(job, total=2, chunk_images=2, size=1)
    backlog = Backlog(ledger.connection)
    assert backlog.take(job, 1, epoch=0) == [0]
    message = MESSAGE.model_copy(update={"job": job})
    lease = ChunkLedger(ledger.connection).start(message, "w@n")
    lease.record([Outcome(index=0, key="a.png", kind=OutcomeKind.OK)])
    return backlog


def test_a_refusal_for_lack_of_replicas_passes(failing_over, servers):
    """Control: a connection that is not patient gives up."""
    with servers.demanding_replicas():
        servers.replica().kill()
        hasty = RedisConnection(failing_over.settings.redis, retries=1, client_name="t")
        with hasty, pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
            hasty.call(lambda: hasty.client.set("x", 1))
        with Ledger(failing_over.settings.redis) as ledger:
            healing = threading.Thread(target=servers.heal)
            healing.start()
            ledger.create("job", OPTIONS)
            healing.join()
            assert ledger.view("job").status is JobStatus.LISTING


def test_replicas_confirm_that_they_have_a_job(failing_over, servers):
    unconfirmed: list[str] = []
    demanding = changed(failing_over, wait_replicas=1, wait_seconds=0.3)
    with Ledger(demanding) as ledger:
        for job in ("heard", "missed"):
            ledger.create(job, OPTIONS)
        assert ledger.seal("heard", total=1, chunk_images=1, size=1, on_unconfirmed=lambda: unconfirmed.append("heard"))
        with servers.deaf_replica():
            assert ledger.seal(
                "missed", total=1, chunk_images=1, size=1, on_unconfirmed=lambda: unconfirmed.append("missed")
            )

    assert unconfirmed == ["missed"]


@pytest.fixture
def silent_replica(servers: SentinelSet) -> Iterator[None]:
    """A replica that is connected and confirms nothing."""
    replica = servers.replica()
    replica.signal(signal.SIGSTOP)
    yield
    replica.signal(signal.SIGCONT)


def test_a_repeated_call_confirms_what_the_first_one_wrote(failing_over, silent_replica):
    """The answer to the first may be lost. WAIT alone counts any replica as long as its connection has not written."""
    unconfirmed: list[str] = []
    demanding = changed(failing_over, wait_replicas=1, wait_seconds=0.3)
    with Ledger(demanding) as ledger, Ledger(demanding) as reconnected:
        backlog = run_one_chunk(ledger)
        for each in (ledger, reconnected):
            assert each.seal("job", total=2, chunk_images=2, size=1, on_unconfirmed=lambda: unconfirmed.append("seal"))
        lease = ChunkLedger(ledger.connection).start(MESSAGE, "w@n")
        lease.record([Outcome(index=1, key="b.png", kind=OutcomeKind.OK)])
        for each in (backlog, Backlog(reconnected.connection)):
            each.close("job", 0, 60, on_unconfirmed=lambda: unconfirmed.append("close"))

        assert ledger.view("job").status is JobStatus.FINISHED
    assert unconfirmed == ["seal", "seal", "close", "close"]


@pytest.mark.parametrize("lost", ["one start", "all starts"])
def test_the_first_start_on_a_new_primary_looks_for_outputs(failing_over, servers, lost):
    """Workers may be faster than the steward, which marks all jobs. Jobs that are submitted after it need no look."""
    with Ledger(failing_over.settings.redis) as ledger:
        chunks = ChunkLedger(ledger.connection)
        ledger.create("job", OPTIONS)
        ledger.seal("job", total=6, chunk_images=2, size=1)
        if lost == "one start":
            assert not chunks.start(MESSAGE, "w@n").recheck
        later = [MESSAGE.model_copy(update={"chunk": chunk, "start": 2 * chunk}) for chunk in (1, 2)]
        with servers.deaf_replica():
            assert not chunks.start(later[0], "w@n").recheck
            servers.fail_over("kill")

        assert [chunks.start(message, "w@n").recheck for message in later] == [True, True]

        ledger.create("new", OPTIONS)
        ledger.seal("new", total=6, chunk_images=2, size=1)
        assert not chunks.start(MESSAGE.model_copy(update={"job": "new"}), "w@n").recheck


def test_a_job_sealed_again_on_a_new_primary_looks_for_outputs(failing_over, servers):
    """The new one knows the job, but not that it ran."""
    with Ledger(failing_over.settings.redis) as ledger:
        chunks, sizes = ChunkLedger(ledger.connection), {"total": 2, "chunk_images": 2, "size": 1}
        ledger.create("job", OPTIONS)
        assert ledger.connection.client.wait(1, 10_000) == 1, "the replica has not the job"
        with servers.deaf_replica():
            ledger.seal("job", **sizes)
            assert not chunks.start(MESSAGE, "w@n").recheck
            servers.fail_over("kill")

        assert ledger.view("job").status is JobStatus.LISTING
        ledger.seal("job", **sizes)
        assert chunks.start(MESSAGE, "w@n").recheck


def test_a_job_that_is_joined_is_confirmed_anew(failing_over, servers):
    upload(failing_over, 1, "in")
    demanding = failing_over.with_settings(
        {"MASKMILL_REDIS__WAIT_REPLICAS": "1", "MASKMILL_REDIS__WAIT_SECONDS": "0.3"}
    )
    source, dest = (f"s3://{failing_over.bucket}/{folder}/" for folder in ("in", "out"))
    with connected_submitter(demanding, 1) as submitter:

        def submitted() -> tuple[bool, bool]:
            found = submitter.submit(source, dest, OutputOptions(), job_key="a-key")
            return found.joined, found.confirmed

        with servers.deaf_replica():
            assert submitted() == (False, False)
            assert submitted() == (True, False)
        servers.heal()
        assert submitted() == (True, True)


def test_replicas_are_counted_by_whether_they_follow(failing_over, servers):
    settings = failing_over.settings.redis
    with RedisConnection(settings, retries=0, client_name="t") as connection:
        assert replicas(connection) == Replicas(connected=1, in_step=1)
        with servers.deaf_replica():
            assert replicas(connection) == Replicas(connected=0, in_step=0)
    assert replicas_wanted(settings) == 1
    assert replicas_wanted(changed(failing_over, wait_replicas=2)) == 2
    assert replicas_wanted(RedisSettings()) == 0


def test_an_outcome_of_the_new_primary_with_a_known_id_is_kept(failing_over, servers):
    """The ids of outcomes are names within one server."""
    with Ledger(failing_over.settings.redis) as ledger:
        backlog = run_one_chunk(ledger)
        entries = backlog.pending_outcomes("job", 10)
        servers.fail_over("coordinated")

        backlog.delete_pending("job", entries)
        kept = backlog.pending_outcomes("job", 10)

        assert kept == entries, "an outcome is gone that was not read from this server"
        assert kept[0].server != entries[0].server
        backlog.delete_pending("job", kept)
        assert backlog.pending_outcomes("job", 10) == []


def test_a_change_of_the_primary_is_noticed(failing_over, servers):
    with Ledger(failing_over.settings.redis) as ledger:
        backlog = Backlog(ledger.connection)
        assert [backlog.seconds_since_change() for _ in range(2)] == [None, None]
        servers.fail_over("coordinated")

        found = [backlog.seconds_since_change() for _ in range(2)]

        assert None not in found and found[0] <= found[1]


def test_a_chunk_that_runs_is_not_given_to_another_worker_after_a_failover(failing_over, servers):
    message = ChunkMessage(job="job", epoch=0, chunk=0, start=0, keys=("a.png", "b.png"))
    with Ledger(failing_over.settings.redis) as ledger:
        ledger.create("job", OPTIONS)
        assert ledger.seal("job", total=2, chunk_images=2, size=1)
        chunks = ChunkLedger(ledger.connection)
        assert ledger.connection.client.wait(1, 10_000) == 1, "the replica has not the job"
        with servers.deaf_replica():
            chunks.start(message, "w@n")
            servers.fail_over("kill")

        assert chunks.touch(message, "w@n")
        assert not chunks.touch(message, "other@n")
        assert chunks.start(message, "other@n").verdict == "busy"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_job_that_the_new_primary_does_not_know_is_created_again(failing_over, servers, monkeypatch, moment):
    """The primary fails just before, or just after, the producer ends the listing of a job."""
    seal, failed = Ledger.seal, []

    def seal_and_fail_over_once(self, job, **sizes):
        if failed:
            return seal(self, job, **sizes)
        answer = seal(self, job, **sizes) if moment == "after" else None
        failed.append(servers.fail_over("kill"))
        return seal(self, job, **sizes) if answer is None else answer

    monkeypatch.setattr(Ledger, "seal", seal_and_fail_over_once)
    upload(failing_over, 3, "in")
    with servers.deaf_replica(), connected_submitter(failing_over, 2) as submitter:
        submitted = submitter.submit(
            f"s3://{failing_over.bucket}/in/", f"s3://{failing_over.bucket}/out/", OutputOptions()
        )

    assert failed and submitted.view.status is JobStatus.RUNNING and submitted.view.total == 3
    with Ledger(failing_over.settings.redis) as ledger:
        message = MESSAGE.model_copy(update={"job": submitted.view.job})
        assert ChunkLedger(ledger.connection).start(message, "w@n").recheck, "it may have run on the old one"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"url": "/other"}, SettingsError, "monitor no primary of that name"),
        ({"sentinel_password": "wrong"}, AccessDenied, "MASKMILL_REDIS__SENTINEL_PASSWORD"),
        ({"password": "wrong"}, AccessDenied, "MASKMILL_REDIS__PASSWORD"),
    ],
)
def test_a_wrong_setting_is_named_at_once(failing_over, change, error, says):
    right = failing_over.settings.redis
    url = right.url.rpartition("/")[0] + change["url"] if "url" in change else right.url
    secrets = {name: SecretStr(value) for name, value in change.items() if name != "url"}
    wrong = right.model_copy(update={"url": url, **secrets})
    connection = RedisConnection(wrong, retries=0, client_name="t", patient=True)
    with connection, pytest.raises(error, match=says):
        connection.call(connection.client.ping)


def test_sentinels_that_do_not_answer_are_reported_at_once(failing_over):
    """A call to an address that has never answered fails at once: there is no failover to wait for."""
    wrong = changed(failing_over, url="sentinel://127.0.0.1:1,127.0.0.1:2/mymaster")
    connection = RedisConnection(wrong, retries=0, client_name="t", patient=True)
    with connection, pytest.raises(BrokerUnavailable, match="none of the 2 Sentinels answers"):
        connection.call(connection.client.ping)


def test_a_managed_primary_that_answers_as_a_replica_is_connected_to_again(tmp_path, standalone):
    """Without Sentinels: the name of the server may lead to another one soon. Control: not patient."""
    with own_redis(tmp_path) as server:
        settings = installation_at(standalone, server.url, {}).settings.redis
        with Ledger(settings) as ledger, Ledger(settings, retries=0, patient=False) as hasty:
            client = ledger.connection.client
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(BrokerUnavailable, match="no primary"):
                hasty.create("job", OPTIONS)
            before = client.client_id()
            timer = threading.Timer(1.0, lambda: hasty.connection.client.replicaof("NO", "ONE"))
            timer.start()
            ledger.create("job", OPTIONS)
            timer.join()

            assert ledger.view("job").status is JobStatus.LISTING
            assert client.client_id() != before, "the connection to the replica was kept"
