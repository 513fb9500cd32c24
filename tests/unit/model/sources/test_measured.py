"""The measured peak memory of a bundle, found without asking a server."""

from __future__ import annotations

import hashlib
import json

import pytest

from unit.model.bundle_files import FILES, XML, manifest, write_bundle
from worker.contract.s3url import S3Url
from worker.contract.settings import ModelSettings
from worker.model.sources.measured import measured_peak

PEAKS = {XML: {"f32": {"process_mib": 150, "stream_mib": 90}, "bf16": {"process_mib": 140, "stream_mib": 60}}}


def write(root, text):
    return write_bundle(root, FILES | {"manifest.json": text})


def peak(source, tmp_path, arithmetic="bf16"):
    return measured_peak(ModelSettings(source=str(source), cache_dir=tmp_path / "cache"), (), arithmetic)


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "bundle", manifest(FILES, memory=PEAKS))


def test_the_variant_that_would_run_counts_with_its_arithmetic(bundle, tmp_path):
    found = peak(bundle, tmp_path)

    assert (found.process_mib, found.stream_mib) == (140, 60)
    assert found.what.endswith("in bf16")


def test_an_arithmetic_that_was_not_measured_counts_as_the_largest(bundle, tmp_path):
    assert peak(bundle, tmp_path, "f16").stream_mib == 90


@pytest.mark.parametrize("facts", [{}, {"memory": {}}, {"memory": {"other.xml": PEAKS[XML]}}])
def test_a_bundle_that_states_nothing(facts, tmp_path):
    assert peak(write(tmp_path / "bundle", manifest(FILES, **facts)), tmp_path) is None


def test_whatever_is_wrong_with_the_source_is_left_to_the_worker(tmp_path):
    assert peak(tmp_path / "nothing", tmp_path) is None
    assert peak("s3://bucket/never/fetched", tmp_path) is None
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert peak(tmp_path / "broken", tmp_path) is None


def test_a_bundle_in_s3_is_known_once_it_is_in_the_cache(tmp_path):
    key = hashlib.sha256(str(S3Url.folder("s3://models/net")).encode()).hexdigest()[:16]
    root = tmp_path / "cache" / "bundles" / key / "0123"
    root.mkdir(parents=True)
    (root / "manifest.json").write_bytes(manifest(FILES, memory=PEAKS))

    assert peak("s3://models/net", tmp_path).process_mib == 140


def test_numbers_that_mean_nothing_make_the_manifest_invalid(tmp_path):
    wrong = json.loads(json.dumps(PEAKS))
    wrong[XML]["f32"]["stream_mib"] = 0

    assert peak(write(tmp_path / "bundle", manifest(FILES, memory=wrong)), tmp_path) is None
