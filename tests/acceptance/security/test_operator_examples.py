"""The examples of the operator's guide agree with each other: `worker check` passes under each, with real users.

Only addresses, certificates and the keys of S3 are those of the test.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml

from support import commands
from support.installation import load_settings
from support.redis_users import KEDA, PASSWORDS, WORKER, SecuredRedis, secured_redis
from support.validators import INFRA
from worker.contract import redis_keys
from worker.contract.input_size import InputSize
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.convert.contrast.graph import contrast_model
from worker.convert.package import write_bundle

GUIDE = (INFRA / "README.md").read_text("utf-8")
ADDRESSES = {"MASKMILL_S3__ENDPOINT_URL", "MASKMILL_S3__ADDRESSING_STYLE", "MASKMILL_S3__REGION"}
KEYS = {"MASKMILL_S3__ACCESS_KEY_ID", "MASKMILL_S3__SECRET_ACCESS_KEY"}
COUNT = """
local kind = redis.call('type', KEYS[1]).ok
local count = {zset='zcard', set='scard', list='llen', hash='hlen', none='llen'}
return redis.call(count[kind], KEYS[1])
"""
"""What KEDA's Redis scaler does for each trigger (documentation of the scaler "Redis Lists", section on types)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SecuredRedis]:
    with secured_redis(tmp_path_factory.mktemp("examples")) as found:
        yield found


@pytest.fixture(scope="module")
def s3(standalone, tmp_path_factory) -> dict[str, str]:
    """The buckets that the examples name, with a bundle where they name one; settings of this S3."""
    settings = {name: value for name, value in standalone.environment().items() if name in ADDRESSES | KEYS}
    folder = tmp_path_factory.mktemp("bundle")
    variants = {(InputSize.square(320), "fp32"): contrast_model()}
    write_bundle(folder / "birefnet_lite", "stand_in", variants, description="stand-in", license="none", source={})
    with ObjectStore(load_settings(settings).s3) as store:
        for bucket in ("photos", "masks", "models"):
            store.ensure_bucket(bucket)
        for file in (folder / "birefnet_lite").rglob("*"):
            if file.is_file():
                store.upload(file, S3Url("models", f"birefnet_lite/{file.relative_to(folder / 'birefnet_lite')}"))
    return settings


@pytest.fixture
def here(server, s3, tmp_path) -> dict[str, str]:
    """Settings that differ from the examples; secrets are files that end in a newline. The stand-in has size 320."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in KEYS:
        (folder / name).write_text(s3[name] + "\n")
    (folder / "MASKMILL_REDIS__PASSWORD").write_text(PASSWORDS[WORKER] + "\n")
    redis_place = {
        name: value
        for name, value in server.environment(WORKER).items()
        if name.endswith(("URL", "_FILE"))  # neither the user nor the prefix
    }
    place = {name: value for name, value in s3.items() if name in ADDRESSES}
    return (
        place
        | redis_place
        | {"MASKMILL_SECRETS_DIR": str(folder), "MASKMILL_MODEL__CACHE_DIR": str(tmp_path / "c")}
        | {"MASKMILL_MODEL__SIZE": "320"}
    )


def check(settings: dict[str, str]) -> None:
    done = commands.run("worker", "check", "--bucket", "photos", "--json", settings=settings)
    assert done.code == 0, done.out + done.err
    found = {line["check"]: line["text"] for line in done.lines}
    assert "s3://models/birefnet_lite" in found["bundle"]


def test_a_node_with_worker_env_is_ready(here):
    shell = ["sh", "-c", f"set -a; . {INFRA}/systemd/worker.env; env -0"]
    given = subprocess.run(shell, env={}, capture_output=True, text=True, check=True).stdout
    example = dict(pair.split("=", 1) for pair in given.split("\0") if pair.startswith("MASKMILL_"))
    assert example["MASKMILL_REDIS__USERNAME"] == WORKER

    check(example | here)


def test_a_pod_of_the_chart_is_ready_and_keda_may_count(here, server, tmp_path):
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: make .venv/.dev")
    [values] = re.findall(r"```yaml\n# shop\.yaml\n(.*?)```", GUIDE, re.DOTALL)
    with helm.Chart.load(INFRA / "helm" / "maskmill") as chart:
        texts = chart.render(yaml.safe_load(values), name="shop", namespace="masks")
    texts.pop("maskmill/templates/NOTES.txt")
    objects = {found["kind"]: found for text in texts.values() for found in yaml.safe_load_all(text) if found}
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]

    secret = created_secrets(tmp_path)
    user = secret["maskmill-redis"]["username"]
    (Path(here["MASKMILL_SECRETS_DIR"]) / "MASKMILL_REDIS__USERNAME").write_text(user)
    check({entry["name"]: entry["value"] for entry in container["env"]} | here)

    references = objects["TriggerAuthentication"]["spec"]["secretTargetRef"]
    login = {entry["parameter"]: secret[entry["name"]][entry["key"]] for entry in references}
    assert (user, login["username"]) == (WORKER, KEDA)
    keys = [trigger["metadata"]["listName"] for trigger in objects["ScaledObject"]["spec"]["triggers"]]
    with as_user(server, login["username"], login["password"]) as client:
        assert [int(client.eval(COUNT, 1, key)) >= 0 for key in keys] == [True] * 4
        for command in (
            ("LRANGE", keys[0], "0", "-1"),
            ("HGETALL", redis_keys.unacked("maskmill:")),
            ("LPUSH", keys[0], "x"),
            ("TYPE", redis_keys.jobs("maskmill:")),
            ("EVAL", "return redis.call('del', KEYS[1])", "1", keys[0]),
        ):
            with pytest.raises(redis.exceptions.ResponseError):
                client.execute_command(*command)


def created_secrets(folder: Path) -> dict[str, dict[str, str]]:
    """Return the secrets that the `kubectl` lines of the guide create from files written as the guide says."""
    [note] = re.findall(r"printf %s \"\$PASSWORD\" > ([\w-]+)", GUIDE)
    files = {note: PASSWORDS[WORKER], "keda-password": PASSWORDS[KEDA]}
    for name, password in files.items():
        subprocess.run(
            ["sh", "-c", f'printf %s "$PASSWORD" > {name}'], env={"PASSWORD": password}, cwd=folder, check=True
        )
    found: dict[str, dict[str, str]] = {}
    for name, rest in re.findall(r"^kubectl create secret generic (\S+) (.*)$", GUIDE, re.MULTILINE):
        for kind, key, value in re.findall(r"--from-(literal|file)=([\w-]+)=(\S+)", rest):
            content = value if kind == "literal" else (folder / value).read_text()
            found.setdefault(name, {})[key] = content
    return found


def as_user(server: SecuredRedis, user: str, password: str) -> redis.Redis:
    own = server.certificates.client
    return redis.Redis(
        "localhost",
        server.tls_port,
        username=user,
        password=password,
        decode_responses=True,
        ssl=True,
        ssl_ca_certs=str(server.certificates.authority),
        ssl_certfile=str(own.certificate),
        ssl_keyfile=str(own.key),
    )
