"""The network that commands use: prepared in a child process, with the built-in one in its place if that fails."""

from __future__ import annotations

import pytest

from unit.model.sources.test_prepared import prepare as put
from worker.cli import network
from worker.contract import settings
from worker.contract.errors import BundleError


@pytest.fixture
def fetches(monkeypatch):
    """Names that the child process was asked for; it does `outcome["does"]` and reports `outcome["failure"]`."""
    outcome = {"names": [], "does": lambda: None, "failure": ""}

    def run(entry, limit_seconds):
        outcome["names"].append((entry.name, limit_seconds is not None))
        outcome["does"]()
        return outcome["failure"]

    monkeypatch.setattr(network, "_run_fetch", run)
    return outcome


def config(source, tmp_path):
    loaded = settings.load()
    model = loaded.model.model_copy(update={"source": source, "cache_dir": tmp_path})
    return loaded.model_copy(update={"model": model})


def prepare(source, tmp_path):
    said = []
    found, resolution = network.prepare(config(source, tmp_path), said.append)
    return found.model.source, resolution.why, said


def test_a_first_run_prepares_the_default_network(fetches, tmp_path):
    fetches["does"] = lambda: put(tmp_path)

    source, why, said = prepare("default", tmp_path)

    assert (source, why) == ("u2netp", "u2netp, the default network")
    assert said == ["fetching and importing u2netp, once (4.6 MB, licence Apache-2.0, commercial use: yes)"]
    assert fetches["names"] == [("u2netp", True)]


def test_a_second_run_fetches_nothing(fetches, tmp_path):
    put(tmp_path)

    assert prepare("default", tmp_path) == ("u2netp", "u2netp, the default network", [])
    assert prepare("u2netp", tmp_path) == ("u2netp", "", [])
    assert fetches["names"] == []


def test_without_the_default_network_the_built_in_one_is_used_and_one_line_says_why(fetches, tmp_path):
    fetches["failure"] = "github.com cannot be reached"

    source, why, _ = prepare("default", tmp_path)

    assert source == "builtin:starter" and "\n" not in why
    assert "run `worker model fetch u2netp`" in why and why.endswith("reason: github.com cannot be reached")


def test_a_named_network_that_cannot_be_prepared_is_an_error(fetches, tmp_path):
    fetches["failure"] = "no such file"

    with pytest.raises(BundleError, match="u2net could not be prepared: no such file"):
        prepare("u2net", tmp_path)
    assert fetches["names"] == [("u2net", False)]


@pytest.mark.parametrize("source", ["builtin:contrast", "/some/folder", "s3://bucket/bundle", "hf://owner/name"])
def test_other_sources_are_left_alone(fetches, tmp_path, source):
    assert prepare(source, tmp_path) == (source, "", [])
    assert fetches["names"] == []


def test_the_child_process_reports_the_last_line_of_its_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("")

    failure = network._run_fetch(network.catalogue.get("silueta"), 60)

    assert failure.startswith("error (bundle): cannot write") and "MASKMILL_MODEL__CACHE_DIR" in failure


def test_a_child_process_that_takes_too_long_is_ended(tmp_path):
    assert network._run_fetch(network.catalogue.get("silueta"), 0.01) == "not finished after 0.01 s"
