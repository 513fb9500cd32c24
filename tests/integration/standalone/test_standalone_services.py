"""The embedded services from the outside: access, listening addresses and persistence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from support.commands import wait_for
from worker.contract import settings
from worker.contract.errors import AccessDenied, ServiceError, StandaloneError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports, seaweed
from worker.standalone.services import DEFAULT_BUCKET, Standalone

PLACE = S3Url(DEFAULT_BUCKET, "kept.bin")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Start services for this module only, since its tests stop and kill them.

    The path of their state folder is too long for a socket.
    """
    services = Standalone(tmp_path_factory.mktemp("own") / ("d" * 100) / "state")
    services.start()
    yield services
    services.kill()


@pytest.fixture
def served(own: Standalone) -> Standalone:
    """Return the services of `own`, running whatever the previous test did to them."""
    for service in (own.redis, own.s3):
        if not service.running:
            service.start()
    return own


def client_of(services: Standalone, password: str | None = None) -> redis.Redis:
    right = services.environment()["MASKMILL_REDIS__PASSWORD"]
    return redis.Redis.from_url(services.redis_url, password=right if password is None else password or None)


def read(services: Standalone) -> bytes:
    with ObjectStore(services.s3.settings) as store:
        return store.get(PLACE, max_bytes=1_000_000)[0]


def write(services: Standalone, data: bytes) -> None:
    with ObjectStore(services.s3.settings) as store:
        store.put(PLACE, data, content_type="application/octet-stream")
    with closing(client_of(services)) as client:
        client.set("kept", data)


# Access


def test_its_environment_loads_as_settings_that_reach_both_services(standalone, monkeypatch):
    for name, value in standalone.environment().items():
        monkeypatch.setenv(name, value)

    loaded = settings.load()

    assert redis.Redis.from_url(loaded.redis.secret_url()).ping()
    with ObjectStore(loaded.s3) as store:
        store.check(S3Url(DEFAULT_BUCKET))


@pytest.mark.parametrize("password", ["", "wrong"])
def test_redis_refuses_a_wrong_and_a_missing_password(standalone, password):
    with closing(client_of(standalone, password)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.parametrize("part", ["access_key_id", "secret_access_key"])
def test_s3_refuses_a_wrong_key(standalone, part):
    wrong = standalone.s3.settings.model_copy(update={part: SecretStr("wrong" * 4)})

    with ObjectStore(wrong) as store, pytest.raises(AccessDenied):
        store.check(S3Url(DEFAULT_BUCKET))


@pytest.mark.parametrize("server", ["s3", "filer", "master", "volume"])
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_without_a_key_no_port_reads_or_writes_an_object(standalone, server, method):
    with ObjectStore(standalone.s3.settings) as store:
        store.put(PLACE, b"x", content_type="text/plain")
    path = f"/{DEFAULT_BUCKET}/kept.bin" if server == "s3" else f"/buckets/{DEFAULT_BUCKET}/kept.bin"
    request = urllib.request.Request(
        f"http://127.0.0.1:{standalone.s3.ports[server]}{path}", method=method, data=b"y" if method == "PUT" else None
    )

    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310

    assert error.value.code in ({403} if server == "s3" else {400, 401, 404, 405})
    assert read(standalone) == b"x"


def test_a_write_to_a_missing_bucket_fails_as_in_s3(standalone):
    with ObjectStore(standalone.s3.settings) as store, pytest.raises(ServiceError, match="does not exist"):
        store.put(S3Url("no-such-bucket", "k"), b"", content_type="text/plain")


# Visibility to other users of the machine


def test_both_listen_on_the_loopback_address_only(standalone):
    for pid in standalone.pids.values():
        listening = [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {address.ip for address in listening} == {"127.0.0.1"}


def test_no_secret_is_on_a_command_line_and_telemetry_is_off(standalone):
    commands = {name: Path(f"/proc/{pid}/cmdline").read_bytes() for name, pid in standalone.pids.items()}
    hidden = json.loads((standalone.state / "credentials.json").read_text()).values()

    assert not [secret for secret in hidden for command in commands.values() if secret.encode() in command]
    assert b"\0-master.telemetry=false\0" in commands["s3"]


def test_the_state_folder_is_private(standalone):
    folders = [standalone.state, *(standalone.state / name for name in ("redis", "s3", "logs"))]
    files = [standalone.state / "credentials.json", standalone.state / "ports.json", *standalone.state.glob("logs/*")]

    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_no_secret_is_in_the_logs_or_in_a_representation(standalone):
    texts = [path.read_text(errors="replace") for path in standalone.state.glob("logs/*")]
    texts.append(f"{standalone._credentials!r} {standalone.s3.settings!r}")
    kept = json.loads((standalone.state / "credentials.json").read_text())

    for name in ("redis_password", "s3_secret_access_key"):
        assert not any(kept[name] in text for text in texts)


# One instance per folder, and persistence


def test_the_error_of_a_second_instance_names_the_process_that_holds_the_folder(served):
    with pytest.raises(StandaloneError, match=f"are already running, under process {os.getpid()}:"):
        Standalone(served.state).start()

    assert set(served.pids) == {"redis", "s3"}  # the first instance is not disturbed
    assert client_of(served).ping()


def test_data_credentials_and_ports_survive_a_stop(served):
    write(served, b"before the stop")
    before = served.environment()

    served.stop()
    assert served.pids == {}
    assert not [port for port in served.s3.ports.values() if not seaweed.is_free(port)]
    assert not list(seaweed._SYSTEM_TEMP.glob(f"seaweedfs-*-grpc-{served.s3.ports['s3'] + 10_000}.sock"))
    assert not seaweed._socket_folder(served.s3.data).exists()
    again = Standalone(served.state)
    with again:
        assert again.environment() == before
        assert read(again) == b"before the stop"
        assert client_of(again).get("kept") == b"before the stop"
    served.start()


def test_data_survives_a_kill_of_both(served):
    write(served, b"before the kill")

    served.redis.kill()
    served.s3.kill()
    assert served.pids == {}
    served.redis.start()
    served.s3.start()

    assert read(served) == b"before the kill"
    assert client_of(served).get("kept") == b"before the kill"


def test_data_survives_a_kill_by_another_process(served):
    write(served, b"before the kill")

    for pid in served.pids.values():
        os.kill(pid, signal.SIGKILL)
    for service in (served.redis, served.s3):
        assert service._process.wait(10)
        assert not service.running
        service.start()

    assert read(served) == b"before the kill"
    assert client_of(served).get("kept") == b"before the kill"


def test_a_suspended_redis_does_not_answer_until_it_is_resumed(served):
    with closing(redis.Redis.from_url(served.redis_url, socket_timeout=0.2, retry=None)) as client:
        served.redis.suspend()
        with pytest.raises(redis.TimeoutError):
            client.execute_command("PING")
        served.redis.resume()
    assert client_of(served).ping()


def test_a_running_service_is_not_started_twice(served):
    with pytest.raises(StandaloneError, match="Valkey is already running"):
        served.redis.launch()
    with pytest.raises(StandaloneError, match="already started by this process"):
        served.start()
    assert client_of(served).ping()


def test_a_port_taken_by_another_program_is_replaced_with_a_warning(served, caplog):
    write(served, b"before the move")
    before = served.s3_endpoint
    served.kill()

    with closing(socket.create_server(("127.0.0.1", served.s3.ports["s3"]))):
        served.start()

    assert served.s3_endpoint != before
    assert "is in use by another program" in caplog.text
    assert read(served) == b"before the move"


def test_a_port_taken_after_it_was_chosen_leads_to_a_start_on_other_ports(served, monkeypatch):
    served.kill()
    real, rivals = ports.choose, []

    def choose_and_lose(*args: object, **options: object) -> dict[str, int]:
        chosen = real(*args, **options)
        if not rivals:
            rivals.append(socket.create_server(("127.0.0.1", chosen["redis"])))
        return chosen

    monkeypatch.setattr(ports, "choose", choose_and_lose)
    served.start()

    with closing(rivals[0]):
        assert rivals[0].getsockname()[1] != served.redis.port
        assert client_of(served).ping()


def test_proxy_variables_of_the_environment_are_not_used(served, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    served.s3.kill()

    served.s3.start()

    assert served.s3.running


def test_the_error_for_unreadable_credentials_names_the_remedy(tmp_path):
    (tmp_path / "credentials.json").write_text("{")

    with pytest.raises(StandaloneError, match=r"cannot read .*credentials.json: delete it"):
        Standalone(tmp_path).start()


def test_a_failed_start_leaves_no_process_and_releases_the_folder(tmp_path, monkeypatch):
    before = set(psutil.Process().children())
    services = Standalone(tmp_path / "state")
    with monkeypatch.context() as context:
        context.setattr(seaweed.Seaweed, "ready_seconds", 0.0)
        context.setattr(seaweed.Seaweed, "_missing", lambda self: "it is never ready")
        with pytest.raises(StandaloneError, match="S3 server was not ready within 0 s"):
            services.start()

    assert set(psutil.Process().children()) == before
    assert services._lock is None


# Disk space


def stored_bytes(services: Standalone) -> int:
    return sum(path.stat().st_size for path in services.s3.data.glob("*.dat"))


def test_the_space_of_deleted_objects_is_freed_and_the_others_stay(served):
    written, count = os.urandom(1_000_000), 12
    write(served, b"kept")
    with ObjectStore(served.s3.settings) as store:
        for number in range(count):
            store.put(S3Url(DEFAULT_BUCKET, f"copies/{number}"), written, content_type="image/jpeg")
        for number in range(count):
            store.delete(S3Url(DEFAULT_BUCKET, f"copies/{number}"))
    assert stored_bytes(served) > count * len(written), "deleting alone frees nothing: else reclaim() is not needed"

    def freed() -> bool:
        served.s3.reclaim()  # on a busy machine the data of some objects is deleted later, and freed by a later call
        return stored_bytes(served) < len(written)

    wait_for(freed, "the space to be freed")
    assert read(served) == b"kept"


def test_a_failure_to_free_space_is_logged_and_no_error(served, caplog, monkeypatch):
    monkeypatch.setattr(seaweed, "_DELETION_SECONDS", 0.0)
    monkeypatch.setattr(seaweed, "_RECLAIM_SECONDS", 0.0)

    served.s3.reclaim()

    assert "was not freed" in caplog.text


def first_answer(port: int, *, identity: Path | None) -> bytes:
    """Return what a gRPC port answers to the beginning of HTTP/2, in clear text or with a client certificate."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, contextlib.ExitStack() as on_end:
        connection: socket.socket = plain
        if identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(identity / "grpc.crt", identity / "grpc.key")
            context.set_alpn_protocols(["h2"])
            connection = on_end.enter_context(context.wrap_socket(plain))
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        try:
            return connection.recv(9)
        except ConnectionError:
            return b""


SETTINGS = 4
"""Type of the frame with which an HTTP/2 server begins (RFC 9113, 3.4 and 4.1); it is the fourth byte."""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("name", ["master", "volume", "filer", "s3"])
def test_grpc_answers_only_with_the_certificate_of_the_data_folder(served, name):
    port = served.s3.ports[name] + ports.GRPC_OFFSET

    assert first_answer(port, identity=served.s3.data)[3:4] == bytes((SETTINGS,))
    assert first_answer(port, identity=None)[3:4] != bytes((SETTINGS,))
    assert stat.S_IMODE((served.s3.data / "grpc.key").stat().st_mode) == 0o600
