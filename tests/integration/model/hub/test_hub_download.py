"""Downloads from the hub: interrupted, resumed, damaged, refused, and without a network."""

from __future__ import annotations

import os
import sys

import pytest

from support.hub import Hub, RunningHub
from support.log_lines import log_text
from worker.contract.errors import (
    AccessDenied,
    BundleError,
    BundleNotFound,
    DigestMismatch,
    HubUnavailable,
    MaskmillError,
)
from worker.model.sources import hub_cache, hub_client
from worker.model.sources.hub_client import HubRepository

REPO = "someone/net"
COMMIT = "0123456789" * 4
LARGE, SMALL = "model.safetensors", "config.json"
FILES = {LARGE: bytes(range(256)) * 4096, SMALL: b'{"a": 1}'}


def get(cache, name=LARGE, revision=None):
    return hub_cache.download(REPO, revision, name, cache)


def names(cache) -> set[str]:
    return {p.name for p in cache.rglob("*") if p.is_file()} - {".lock", "hub.json"}


@pytest.mark.parametrize("name", [LARGE, SMALL], ids=["large file, SHA-256", "file in git, SHA-1"])
def test_a_file_is_downloaded_once_and_is_not_a_link(hub: Hub, tmp_path, name):
    commit = hub.publish(REPO, FILES)

    first, again = get(tmp_path, name), get(tmp_path, name)

    assert first == again
    assert first.read_bytes() == FILES[name]
    assert not first.is_symlink()
    assert hub.downloads() == [f"{REPO}/{commit}/{name}"]


def test_an_interrupted_download_is_resumed(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    hub.cuts = [300_000, 200_000]

    assert get(tmp_path).read_bytes() == FILES[LARGE]

    ranges = [r.range for r in hub.requests if r.path.startswith("/cdn/")]
    assert ranges == ["", "bytes=300000-", "bytes=500000-"]


def test_a_failed_download_is_resumed_by_the_next(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    hub.cuts = [300_000, *[0] * 20]

    with pytest.raises(HubUnavailable, match=r"cannot be reached|sent no bytes"):
        get(tmp_path)

    assert names(tmp_path) == {f"{LARGE}.part"}
    hub.cuts, hub.requests = [], []
    assert get(tmp_path).read_bytes() == FILES[LARGE]
    assert [r.range for r in hub.requests if r.path.startswith("/cdn/")] == ["bytes=300000-"]
    assert names(tmp_path) == {LARGE}


def test_a_server_without_ranges_sends_all_again(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    hub.cuts, hub.ranges = [300_000], False

    assert get(tmp_path).read_bytes() == FILES[LARGE]


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_damaged_bytes_never_get_their_name(hub: Hub, tmp_path, name):
    hub.publish(REPO, FILES)
    hub.served[name] = bytes(len(FILES[name]))

    with pytest.raises(DigestMismatch, match=r"expected \w+, got \w+; it is deleted"):
        get(tmp_path, name)

    assert names(tmp_path) == set()


def test_more_bytes_than_announced_are_refused(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    hub.served[LARGE] = FILES[LARGE] + b"more"

    with pytest.raises(DigestMismatch, match=f"expected {len(FILES[LARGE])} bytes, the hub {hub.url} sends more"):
        get(tmp_path)

    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_a_file_damaged_in_the_cache_is_refused(hub: Hub, tmp_path, name):
    hub.publish(REPO, FILES)
    path = get(tmp_path, name)
    path.write_bytes(b"damaged since")

    with pytest.raises(DigestMismatch, match=f"delete {path}, it will be fetched again"):
        get(tmp_path, name)


def test_an_empty_file_is_a_file(hub: Hub, tmp_path):
    hub.publish(REPO, {"empty": b""})

    assert get(tmp_path, "empty").read_bytes() == b""


def test_a_branch_is_followed_to_its_new_commit_and_a_pinned_commit_is_not(hub: Hub, tmp_path):
    old = hub.publish(REPO, FILES)
    first = get(tmp_path)
    hub.publish(REPO, {LARGE: b"new" * 100})

    assert get(tmp_path).read_bytes() == b"new" * 100
    assert get(tmp_path, revision=old).read_bytes() == FILES[LARGE]
    assert first.read_bytes() == FILES[LARGE]


def test_a_pinned_commit_needs_no_request_once_it_is_cached(hub: Hub, tmp_path):
    commit = hub.publish(REPO, FILES)
    get(tmp_path, revision=commit)
    hub.requests = []

    assert get(tmp_path, revision=commit).read_bytes() == FILES[LARGE]
    assert hub.requests == []


def test_without_a_network_the_cached_copy_is_used_and_announced(running: RunningHub, tmp_path, caplog):
    commit = running.hub.publish(REPO, FILES)
    get(tmp_path)
    running.stop()

    assert get(tmp_path).read_bytes() == FILES[LARGE]
    assert f"cannot be reached for hf://{REPO}" in caplog.text
    assert f"event=model_from_cache commit={commit}" in log_text(caplog)
    with pytest.raises(HubUnavailable, match=f"{SMALL} of commit {commit} is not in the cache"):
        get(tmp_path, SMALL)


def test_without_a_network_and_a_cached_copy_the_error_names_hub_and_remedies(running: RunningHub, tmp_path):
    running.stop()

    with pytest.raises(HubUnavailable) as caught:
        get(tmp_path)

    for part in (running.hub.url, REPO, "HTTPS_PROXY", "HF_ENDPOINT", "copy the files to a folder"):
        assert part in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("no/such", None, LARGE), "shows no repository no/such; correct the name, or set HF_TOKEN"),
        ((REPO, "v9", LARGE), "has no revision 'v9'"),
        ((REPO, None, "other.bin"), "has no file other.bin"),
        ((REPO, None, "../../secret"), "has no file"),
    ],
)
def test_a_missing_repository_revision_or_file_is_refused(hub: Hub, tmp_path, place, message):
    hub.publish(REPO, FILES)

    with pytest.raises(BundleNotFound, match=message):
        hub_cache.download(*place, tmp_path)


def test_a_gated_repository_needs_the_token_which_goes_to_the_hub_only(hub: Hub, tmp_path, monkeypatch):
    hub.publish(REPO, FILES)
    hub.gated, hub.token = {REPO}, "hf_secretsecret"

    with pytest.raises(AccessDenied, match="is gated: accept its terms"):
        get(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrong")
    with pytest.raises(MaskmillError) as refused:
        get(tmp_path)
    assert "hf_wrongwrong" not in str(refused.value)

    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert get(tmp_path).read_bytes() == FILES[LARGE]
    sent = {r.host.split(":")[0]: r.authorization for r in hub.requests}
    assert sent == {"127.0.0.1": f"Bearer {hub.token}", "localhost": ""}


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(503, HubUnavailable, "answered 503"), (403, AccessDenied, "set HF_TOKEN"), (400, MaskmillError, "answered 400")],
)
def test_other_answers(hub: Hub, tmp_path, status, error, message):
    hub.status = status

    with pytest.raises(error, match=message):
        get(tmp_path)


def test_an_endpoint_that_is_not_a_hub(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    hub.branches[REPO, "main"] = "short"
    hub.commits[REPO, "short"] = FILES

    with pytest.raises(BundleError, match="did not answer as a hub does"):
        get(tmp_path)


def test_a_login_in_the_endpoint_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:hush@127.0.0.1:9")

    with pytest.raises(HubUnavailable) as caught:
        get(tmp_path)

    assert "hush" not in str(caught.value)
    assert "http://127.0.0.1:9" in str(caught.value)


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(BundleError, match="set MASKMILL_MODEL__CACHE_DIR"):
        get(tmp_path / "file")


def test_a_full_disk_leaves_no_partial_file(hub: Hub, tmp_path, monkeypatch):
    hub.publish(REPO, FILES)

    def full(_snapshot, _name, part, _on_received):
        part.write_bytes(b"begin")
        raise OSError(28, os.strerror(28), str(part))

    monkeypatch.setattr(hub_client, "resume_download", full)

    with pytest.raises(BundleError, match="No space left on device; set MASKMILL_MODEL__CACHE_DIR"):
        get(tmp_path)
    assert names(tmp_path) == set()


def test_no_telemetry_is_sent(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    get(tmp_path)

    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert all("telemetry" not in r.path for r in hub.requests)
    assert {r.user_agent.split("/")[0] for r in hub.requests} == {"maskmill"}


def test_progress_grows_and_ends_with_the_whole_file(hub: Hub, tmp_path):
    hub.publish(REPO, FILES)
    seen: list[tuple[str, int, int]] = []

    hub.cuts = [300_000]

    hub_cache.download(REPO, None, LARGE, tmp_path, lambda *report: seen.append(report))

    assert seen[-1] == (LARGE, len(FILES[LARGE]), len(FILES[LARGE]))
    received = [count for _, count, _ in seen]
    assert received == sorted(received)  # a resumed download continues the count
    assert 300_000 in received


def test_a_missing_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(BundleError, match=r"pip install 'maskmill\[hub\]'"):
        get(tmp_path)


@pytest.mark.parametrize(
    ("text", "repo", "revision", "pinned"),
    [
        ("hf://a/b", "a/b", None, False),
        ("hf://a/b.c-d_e@main", "a/b.c-d_e", "main", False),
        ("hf://a/b@refs/pr/1", "a/b", "refs/pr/1", False),
        (f"hf://a/b@{COMMIT}", "a/b", COMMIT, True),
    ],
)
def test_repository_addresses(text, repo, revision, pinned):
    parsed = HubRepository.parse(text)

    assert (parsed.repo, parsed.revision, parsed.is_pinned, str(parsed)) == (repo, revision, pinned, text)


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/b/c", "hf://a/b@", "hf://a/..", "hf://a b/c", "s3://a/b"])
def test_a_malformed_address_is_refused(text):
    with pytest.raises(BundleNotFound, match="is not a repository of the hub"):
        HubRepository.parse(text)
