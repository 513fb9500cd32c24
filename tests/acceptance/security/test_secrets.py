"""No log, metric, command line, Redis key or S3 object contains a secret after several jobs.

Not searched: the environment of the processes (`/proc/PID/environ`), through which they receive their secrets. The
kernel shows it only to the same user and to root.
"""

from __future__ import annotations

import gzip
import threading
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

import psutil
import pytest

from support import commands
from support.installation import load_settings
from support.redis_users import ADMIN, PASSWORDS, PRODUCER, UNKNOWN_USER, WORKER
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


def spellings(secret: str) -> set[str]:
    """Return a secret in plain text and as quoted in URLs."""
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}


def leaks(texts: Mapping[str, str], secrets: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (where, which secret) for each secret found in a text."""
    return [
        (where, name)
        for where, text in texts.items()
        for name, secret in secrets.items()
        if any(spelling in text for spelling in spellings(secret))
    ]


def redis_contents(secured) -> str:
    """Return every key with its value, and the names of the connections."""
    read = {
        "string": lambda c, key: c.get(key),
        "hash": lambda c, key: c.hgetall(key),
        "list": lambda c, key: c.lrange(key, 0, -1),
        "set": lambda c, key: c.smembers(key),
        "zset": lambda c, key: c.zrange(key, 0, -1),
        "stream": lambda c, key: c.xrange(key),
    }
    with secured.redis.client(ADMIN) as admin:
        admin.connection_pool.connection_kwargs["encoding_errors"] = "replace"
        found = {key: read[admin.type(key)](admin, key) for key in admin.scan_iter()}
        assert any("job:" in key for key in found)
        return repr(found) + repr(admin.client_list())


def s3_contents(secured) -> str:
    """Return every object with its key and metadata, decompressed."""
    texts = []
    with ObjectStore(load_settings(secured.producer).s3) as store:
        for item in store.list(S3Url(secured.bucket)):
            data, info = store.get(S3Url(secured.bucket, item.key), max_bytes=2**24)
            data = gzip.decompress(data) if item.key.endswith(".gz") else data
            texts.append(f"{item.key} {info.metadata} {data.decode('latin-1')}")
    assert any("manifest.json" in text for text in texts)
    return "\n".join(texts)


def command_lines() -> str:
    """Return the command lines of all processes, as `ps` shows them."""
    lines = []
    for process in psutil.process_iter(["cmdline", "name"]):
        lines.append(" ".join(process.info["cmdline"] or [process.info["name"] or ""]))
    return "\n".join(lines)


@pytest.fixture
def secrets(secured) -> dict[str, str]:
    return {
        "worker's Redis password": PASSWORDS[WORKER],
        "producer's Redis password": PASSWORDS[PRODUCER],
        "S3 secret": secured.worker["MASKMILL_S3__SECRET_ACCESS_KEY"],
    }


def test_no_secret_is_shown(secured, secrets):
    seen, over = [command_lines()], threading.Event()

    def record() -> None:
        while not over.wait(0.2):
            seen.append(command_lines())

    watch = threading.Thread(target=record)
    watch.start()
    try:
        with ObjectStore(load_settings(secured.producer).s3) as store:
            store.put(S3Url(secured.bucket, "in/bad/broken.jpg"), b"\xff\xd8\xff no picture", content_type="x")
        secured.submit("secrets", "--exclude", "bad/**")
        failing = secured.run("submit", secured.url("in/bad"), secured.url("out/bad"), "--wait", "--json")
        config = commands.run("worker", "config", settings=secured.worker)
        check = commands.run("worker", "check", settings=secured.worker)
        wrong = secured.producer | {"MASKMILL_REDIS__USERNAME": UNKNOWN_USER}
        refused = commands.run("producer", "list", settings=wrong)
    finally:
        over.set()
        watch.join()
    assert (failing.code, config.code, check.code, refused.code) == (3, 0, 0, 1), (check.out, check.err)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{secured.metrics_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    texts = {
        "log of the workers": secured.worker_log.read_text(),
        "output of the commands": "".join([*secured.output, *(r.out + r.err for r in (config, check, refused))]),
        "Redis": redis_contents(secured),
        "metrics": metrics,
        "S3": s3_contents(secured),
        "ps": "\n".join(seen),
    }

    assert "maskmill_" in metrics and "worker start" in texts["ps"]
    assert [name for name, text in texts.items() if len(text) < 200] == []
    assert leaks(texts, secrets) == []


def test_control_the_search_finds_a_secret(secrets):
    """Control of the test above: a secret in a URL is found."""
    for name, secret in secrets.items():
        assert leaks({"log": f"url=rediss://me:{quote(secret, safe='')}@host"}, {name: secret}) == [("log", name)]
