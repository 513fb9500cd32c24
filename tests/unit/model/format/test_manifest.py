"""Reading a bundle manifest and comparing digests."""

from __future__ import annotations

import json
import os

import pytest

from unit.model.bundle_files import BIN, DIGEST, FILES, XML, manifest, sha
from worker.contract.errors import BundleError, DigestMismatch
from worker.model.format.manifest import (
    MAX_MANIFEST_BYTES,
    read_bundle_manifest,
    sha256_of,
    variant_digest,
    verified_sha256,
)


def test_facts_are_read_and_unknown_keys_ignored(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest(FILES, source={"url": "somewhere"}))

    read = read_bundle_manifest(path)

    assert (read.name, read.description, read.license) == ("net", "a net", "MIT")
    assert read.files[XML].sha256 == sha(FILES[XML])
    assert read.files[BIN].bytes == len(FILES[BIN])


@pytest.mark.parametrize(
    ("facts", "failure"),
    [
        ({"precision": "int8", "agreement": {"mae": 0.001, "iou": 0.97}}, ""),
        ({"precision": "int8", "agreement": {"mae": 0.001, "iou": 0.85}}, "IoU 0.8500 below 0.95"),
        ({"precision": "fp16", "agreement": {"mae": 0.01, "iou": 0.995}}, "MAE 0.0100 above 0.002"),
        ({"precision": "int8", "agreement": {"mae": 0.0, "iou": 1.0}, "kept_by_force": "as told"}, "as told"),
        ({"precision": "int8", "agreement": None}, ""),
        ({"precision": "fp32", "build_seconds": 3, "agreement": None, "kept_by_force": ""}, ""),
    ],
)
def test_a_variant_that_differs_too_much_from_fp32_is_known(facts, failure, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest(FILES, variants={XML: facts}))

    assert read_bundle_manifest(path).failed_variants() == ({XML: failure} if failure else {})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{not json", "the JSON itself"),
        (b"[]", "the JSON itself"),
        (manifest(FILES, schema_version=2), "schema_version"),
        (json.dumps({"schema_version": 1, "files": {}}).encode(), "name"),
        (manifest(FILES, files={XML: {"sha256": "ABC", "bytes": 1}}), f"files.{XML}.sha256"),
        (manifest(FILES, files={XML: {"sha256": sha(b""), "bytes": -1}}), f"files.{XML}.bytes"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(tmp_path, content, named):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)

    with pytest.raises(BundleError) as caught:
        read_bundle_manifest(path)

    assert str(path) in str(caught.value)
    assert f"wrong: {named};" in str(caught.value)


def test_a_huge_manifest_is_not_read(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))

    with pytest.raises(BundleError, match="has 1048577 bytes, more than the 1048576 bytes allowed"):
        read_bundle_manifest(path)


def test_a_missing_file_raises_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match=r"gone\.bin cannot be read: No such file"):
        sha256_of(tmp_path / "gone.bin")


def test_a_mismatch_names_file_expected_got_and_remedy(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest(FILES))
    described = read_bundle_manifest(path)
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(b"other")

    with pytest.raises(DigestMismatch) as caught:
        verified_sha256(described, BIN, damaged, remedy="copy it again")

    assert str(caught.value) == f"{damaged}: SHA-256 expected {sha(FILES[BIN])}, got {sha(b'other')}; copy it again"


def test_a_file_that_the_manifest_does_not_describe_is_not_trusted(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest({XML: FILES[XML]}))

    with pytest.raises(DigestMismatch, match=f"{BIN} is in the bundle but not in its manifest"):
        verified_sha256(read_bundle_manifest(path), BIN, path, remedy="")


def test_the_digest_of_a_variant_is_fixed():
    assert variant_digest(sha(FILES[XML]), sha(FILES[BIN])) == DIGEST
    assert variant_digest(sha(FILES[BIN]), sha(FILES[XML])) != DIGEST


@pytest.mark.timeout(20)
def test_a_pipe_has_no_digest(tmp_path):
    """`worker model verify` looks at all files of a bundle."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(BundleError, match="is not a regular file"):
        sha256_of(tmp_path / "pipe")
