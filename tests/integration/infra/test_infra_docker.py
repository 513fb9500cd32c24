"""Container images and the compose file, tested as far as possible without a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis import exceptions as redis_errors

from support import dockerfile, env_example, validators
from support.commands import BIN, wait_for
from support.validators import INFRA, ROOT
from worker.contract.errors import MaskmillError
from worker.contract.ledger.connection import RedisConnection
from worker.contract.s3url import S3Url
from worker.contract.settings import RedisSettings, S3Settings, Settings
from worker.contract.storage.s3 import ObjectStore
from worker.standalone import ports, valkey

DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
LOCKS = sorted((INFRA / "docker").glob("*.lock"))
OWN = {"worker", "producer", "flower"}
PINNED = re.compile(r"^([a-z0-9_.-]+)==([^ ;]+)", re.MULTILINE)


def compose(folder: Path, *args: str) -> Any:
    """Return the compose file as parsed by docker-compose."""
    return yaml.safe_load(validators.run("docker-compose", "--profile", "*", "config", *args, cwd=folder))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Copy the files that `docker compose` reads, and write `.env` with `make-env`."""
    for name in ("docker-compose.yml", ".env.example", "infra/docker/make-env", "infra/redis/users.acl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    validators.run(tmp_path / "infra/docker/make-env")
    return tmp_path


def test_hadolint_reports_nothing():
    assert validators.run("hadolint", *DOCKERFILES) == ""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_the_last_stage_is_small_and_not_root(path):
    *_, (_, last_stage) = dockerfile.stages(path).items()
    everything = [i for stage in dockerfile.stages(path).values() for i in stage]
    stage = last_stage if dockerfile.last(last_stage, "USER") else [*dockerfile.stages(path)["base"], *last_stage]

    assert dockerfile.last(stage, "USER") == "10001:10001"
    assert not [i for i in stage if i.name == "RUN" and re.search(r"apt|pip install|hatchling", i.arguments)]
    assert dockerfile.exec_form(dockerfile.last(stage, "ENTRYPOINT")) == [path.stem]
    assert dockerfile.last(stage, "HEALTHCHECK")
    # Packages from an index are installed only if a lock file holds their digests.
    for install in (i.arguments for i in everything if i.name == "RUN" and "pip install" in i.arguments):
        assert "--require-hashes" in install or "--no-index" in install


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_images_contain_the_tested_versions(lock):
    tested = set(PINNED.findall((ROOT / "dev.lock").read_text("utf-8")))
    found = set(PINNED.findall(lock.read_text("utf-8")))

    assert found and found <= tested
    assert "://" not in lock.read_text("utf-8")


def test_the_producer_image_omits_the_heavy_libraries():
    names = {name for name, _ in PINNED.findall((INFRA / "docker" / "producer.lock").read_text("utf-8"))}

    assert not names & {"openvino", "numpy", "onnxruntime", "hatchling", "cmake"}


def test_the_compose_file_is_valid(host):
    validators.run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", host / "docker-compose.yml")

    assert set(compose(host)["services"]) == OWN | {"redis", "s3", "redis-exporter", "prometheus", "grafana"}


def test_without_passwords_nothing_starts(host):
    (host / ".env").unlink()
    done = subprocess.run(
        [BIN / "docker-compose", "config", "-q"], cwd=host, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1 and "run infra/docker/make-env" in done.stderr


def test_up_starts_the_services_of_the_main_job(host):
    found = yaml.safe_load(validators.run("docker-compose", "config", cwd=host))["services"]

    assert set(found) == {"redis", "s3", "worker"}


def test_containers_have_only_the_rights_they_need(host):
    services = compose(host)["services"]

    for name in OWN | {"redis", "redis-exporter", "prometheus", "grafana"}:
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], name
        assert services[name]["security_opt"] == ["no-new-privileges:true"], name
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
    assert "ports" not in services["redis"]


def test_containers_have_limits_on_memory_and_processes(host):
    for name, service in compose(host)["services"].items():
        assert 0 < int(service["mem_limit"]) <= 16 * 2**30, name
        assert 0 < service["pids_limit"] <= 4096, name


def test_services_log_in_to_redis_as_the_users_of_the_acl_file(host):
    users = set(re.findall(r"^user (\S+) on", (INFRA / "redis" / "users.acl").read_text("utf-8"), flags=re.MULTILINE))
    services = compose(host)["services"]
    found = {name: services[name]["environment"] for name in (*OWN, "redis-exporter")}
    logins = {name: given.get("MASKMILL_REDIS__USERNAME") or given["REDIS_USER"] for name, given in found.items()}

    assert logins == {
        "worker": "maskmill-worker",
        "flower": "maskmill-worker",
        "producer": "maskmill-producer",
        "redis-exporter": "maskmill-monitor",
    }
    assert set(logins.values()) <= users - {"maskmill-admin"}
    assert len({given.get("MASKMILL_REDIS__PASSWORD") or given["REDIS_PASSWORD"] for given in found.values()}) == 3


def test_workers_and_producers_may_touch_the_buckets_of_the_compose_file_only(host):
    services = compose(host)["services"]
    buckets = re.search(r"-bucket=(\S+)", " ".join(services["s3"]["command"]))[1].split(",")

    for name in OWN:
        assert json.loads(services[name]["environment"]["MASKMILL_S3__ALLOW"]) == buckets, name


def test_passwords_are_on_no_command_line_and_in_no_other_service(host):
    services = compose(host)["services"]
    values = dict(line.split("=", 1) for line in (host / ".env").read_text().splitlines() if re.match(r"[A-Z]", line))

    assert len(values) == 9 and all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    for service in services.values():
        line = str([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert not [name for name, value in values.items() if value in line]
    for other in ("FLOWER_PASSWORD", "GRAFANA_PASSWORD", "REDIS_PASSWORD", "REDIS_MONITOR_PASSWORD"):
        assert values[other] not in str(services["worker"]) + str(services["producer"])
    assert values["REDIS_WORKER_PASSWORD"] not in str(services["producer"])
    assert values["REDIS_PRODUCER_PASSWORD"] not in str(services["worker"])


def test_make_env_does_not_change_an_existing_file(host):
    before = (host / ".env").read_text()

    with pytest.raises(AssertionError, match="nothing was changed"):
        validators.run(host / "infra/docker/make-env")

    assert (host / ".env").read_text() == before and (host / ".env").stat().st_mode & 0o077 == 0


def test_the_example_names_every_setting():
    """To update the example, run `python -m support.env_example`; see its docstring."""
    part = (ROOT / ".env.example").read_text("utf-8").partition(env_example.MARK)[2]

    assert part.split("\n\n", 1)[1] == env_example.settings_part()


def test_the_unchanged_example_equals_the_defaults(tmp_path):
    text = re.sub(r"^#(MASKMILL_)", r"\1", env_example.settings_part(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text)

    assert Settings().model_dump(exclude={"model": {"cache_dir"}}) == Settings(_env_file=None).model_dump(
        exclude={"model": {"cache_dir"}}
    )


def test_every_setting_of_env_reaches_the_worker(host, monkeypatch):
    monkeypatch.delenv("MASKMILL_MODEL__SOURCE")  # of the test run; it would come before `.env`
    text = re.sub(r"^#(MASKMILL_[A-Z0-9_]+)=.*", r"\1=from-env", env_example.settings_part(), flags=re.MULTILINE)
    with (host / ".env").open("a") as file:
        file.write(text)
    given = compose(host)["services"]["worker"]["environment"]
    image = dockerfile.stages(INFRA / "docker" / "worker.Dockerfile")["worker"]
    names = set(re.findall(r"^#(MASKMILL_[A-Z0-9_]+)", env_example.settings_part(), flags=re.MULTILINE))
    elsewhere = {name for name in names if name in dockerfile.last(image, "ENV")}
    # Services on one host use no TLS and no Sentinels, and the container holds no certificate files.
    sentinel = {name for name in names if name.startswith("MASKMILL_REDIS__SENTINEL_")}
    unused = (
        {"MASKMILL_S3__SESSION_TOKEN"}
        | sentinel
        | {name for name in names if name.endswith(("__CA_FILE", "__CERT_FILE", "__KEY_FILE"))}
    )

    assert set(given) == names - elsewhere - unused
    fixed = {name for name, value in given.items() if value != "from-env"}
    assert fixed == {name for name in given if re.search(r"URL$|USERNAME$|PASSWORD$|KEY|ADDRESSING", name)}


def test_redis_runs_as_the_compose_file_says(host, tmp_path):
    service = yaml.safe_load((host / "docker-compose.yml").read_text())["services"]["redis"]
    port = ports.choose({"redis": (0,)})["redis"]
    (tmp_path / "data").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(valkey.server_program())
    script = service["command"][0].replace("$$", "$").replace("/etc/valkey", str(host / "infra/redis"))
    script = script.replace("dir /data", f"dir {tmp_path}/data\nport {port}\nbind 127.0.0.1")
    passwords = {f"{name}_PASSWORD": f"{name}-0123abcd" for name in ("REDIS", "WORKER", "PRODUCER", "MONITOR")}
    process = subprocess.Popen(
        [*service["entrypoint"], script],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PREFIX": "shop:", "MAXMEMORY": "64mb"} | passwords,
        stdout=subprocess.DEVNULL,
    )

    def connected(user: str, password: str) -> RedisConnection:
        settings = RedisSettings(url=f"redis://127.0.0.1:{port}/0", username=f"maskmill-{user}", password=password)
        return RedisConnection(settings, retries=0, client_name="test")

    try:
        for user in ("worker", "producer"):
            with connected(user, passwords[f"{user.upper()}_PASSWORD"]) as link:
                facts = wait_for(lambda link=link: _answer(link.check), "Redis", 10)
        with redis_client(port, "maskmill-worker", passwords["WORKER_PASSWORD"]) as worker:
            assert worker.set("shop:leader:x", "1") and worker.info()["maxmemory"] == 64 * 2**20
            with pytest.raises(redis_errors.NoPermissionError):
                worker.get("maskmill:leader:x")
        with redis_client(port, "maskmill-monitor", passwords["MONITOR_PASSWORD"]) as monitor:
            assert monitor.info()["redis_version"]
            with pytest.raises(redis_errors.NoPermissionError):
                monitor.get("shop:leader:x")
        with connected("worker", passwords["PRODUCER_PASSWORD"]) as stranger:
            assert _answer(stranger.check) is None
        settings = RedisSettings(url=f"redis://127.0.0.1:{port}/0")
        with RedisConnection(settings, retries=0, client_name="test") as stranger:
            assert _answer(stranger.check) is None
        assert b"0123abcd" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert facts["append_only"] == "yes"


def test_only_services_that_need_s3_are_in_its_network(host):
    """Its gRPC ports ask for no key. Prometheus reads its metrics."""
    services = compose(host)["services"]

    users = {name for name, service in services.items() if "storage" in service["networks"]}
    assert users == {"s3", "worker", "producer", "prometheus"}
    assert set(services["s3"]["networks"]) == {"storage"}
    assert all("default" in services[name]["networks"] for name in services.keys() - {"s3"})


def test_s3_runs_as_the_compose_file_says(host, tmp_path):
    s3 = yaml.safe_load((host / "docker-compose.yml").read_text())["services"]["s3"]
    port = ports.choose(dict.fromkeys(("s3", "master", "volume", "filer", "admin", "metrics"), (0, ports.GRPC_OFFSET)))
    line = s3["command"].replace("/data", str(tmp_path / "data")).replace("-ip=s3", "-ip=127.0.0.1")
    line = (
        line.replace("-ip.bind=0.0.0.0", "-ip.bind=127.0.0.1")
        .replace("8333", str(port["s3"]))
        .replace("9327", str(port["metrics"]))
    )
    more = [f"-{name}.port={port[name]}" for name in ("master", "volume", "filer", "admin")]
    more += [f"-{name}.localSocket={tmp_path}/{name}.sock" for name in ("filer", "s3")]
    (tmp_path / "data").mkdir()
    variables = {name: "0123abcd" for name in s3["environment"] if name != "GOMEMLIMIT"}
    process = subprocess.Popen(
        [BIN / "weed", *line.split(), *more],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GOMEMLIMIT": "150MiB", **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = S3Settings(
        endpoint_url=f"http://127.0.0.1:{port['s3']}",
        access_key_id="0123abcd",
        secret_access_key="0123abcd",
        addressing_style="path",
        attempts=1,
    )
    try:
        with ObjectStore(settings) as store:
            for bucket in ("photos", "masks"):
                wait_for(
                    lambda bucket=bucket: _answer(lambda: store.check(S3Url.folder(f"s3://{bucket}/")) or True),
                    bucket,
                    20,
                )
    finally:
        process.kill()
        process.wait()
        for left in Path(tempfile.gettempdir()).glob("seaweedfs-*-grpc-*.sock"):
            if int(left.stem.rpartition("-")[2]) - ports.GRPC_OFFSET in port.values():
                left.unlink()


def redis_client(port: int, user: str, password: str) -> redis.Redis:
    return redis.Redis("127.0.0.1", port, username=user, password=password)


def _answer(ask: Any) -> Any:
    try:
        return ask()
    except MaskmillError:
        return None


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "stage"), [("worker", "build"), ("producer", "build")])
def test_the_build_stage_builds_with_pip(name, stage, tmp_path):
    """Run each COPY and RUN of the stage in a separate root with this Python, then the programs of the image.

    With pip and a compiler, as in the image; tests/acceptance/install/test_images.py does it with uv in every run.
    """
    instructions = dockerfile.stages(INFRA / "docker" / f"{name}.Dockerfile")[stage]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUAL_ENV")}
    environment["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"
    dockerfile.Root(tmp_path / "root", ROOT, environment).execute(instructions)
    installed = tmp_path / "root" / "opt" / "maskmill"

    assert not list((installed / "bin").glob("pip*"))
    variables = {"PATH": f"{installed}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    if name == "producer":
        assert "submit" in validators.run(installed / "bin" / "producer", "--help", env=variables)
        assert not list(installed.glob("lib/python3*/site-packages/openvino"))
        return
    assert "passed" in validators.run(
        installed / "bin" / "worker", "model", "verify", "builtin:contrast", cwd=tmp_path, env=variables
    )
    # One line for each arithmetic; without kernels it prints a message instead.
    assert validators.run(installed / "bin" / "worker", "kernels", "show", env=variables).startswith("f32 ")
