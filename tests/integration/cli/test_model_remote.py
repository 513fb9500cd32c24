"""`worker model` with bundles in S3 and on the hub."""

from __future__ import annotations

import json

import huggingface_hub
import pytest

from support.hub import RunningHub
from unit.model.bundle_files import BIN, DIGEST, FILES, XML, manifest
from worker.cli import cli
from worker.contract.s3url import S3Url

REPO = "someone/net"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with RunningHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
    huggingface_hub.close_session()


def worker(capsys, *args: str) -> tuple[int, dict]:
    code = cli.main(["model", *args, "--json"], standalone_mode=False)
    return code, json.loads(capsys.readouterr().out)


def test_a_bundle_on_the_hub(hub, cache, capsys):
    commit = hub.publish(REPO, FILES)
    pinned = f"hf://{REPO}@{commit}"

    code, listed = worker(capsys, "list", f"hf://{REPO}")
    assert (code, listed["source"], hub.downloads()) == (0, pinned, [])
    assert listed["variants"][0]["digests"] == f"verified on fetch, against the hub, for commit {commit}"

    code, shown = worker(capsys, "show", f"hf://{REPO}")
    assert (code, shown["source"], shown["manifest"], shown["model_info"]) == (0, pinned, {}, {})

    code, fetched = worker(capsys, "fetch", f"hf://{REPO}")
    assert (code, fetched["source"], fetched["digest"]) == (0, pinned, DIGEST)
    assert fetched["bin"].startswith(str(cache))
    assert commit in fetched["warnings"][0]


def test_a_bundle_in_s3(installation, store, cache, tmp_path, capsys):
    folder = S3Url.folder(f"s3://{installation.bucket}/nets/")
    for name, data in {**FILES, "manifest.json": manifest(FILES)}.items():
        store.put(folder / name, data, content_type="application/octet-stream")

    code, listed = worker(capsys, "list", str(folder))
    assert code == 0
    assert listed["variants"][0]["digests"] == "in the manifest, verified on fetch"

    code, fetched = worker(capsys, "fetch", str(folder))
    assert (code, fetched["digest"]) == (0, DIGEST)
    assert (fetched["xml"].endswith(XML), fetched["bin"].endswith(BIN)) == (True, True)
    assert (cache / "bundles").is_dir()
