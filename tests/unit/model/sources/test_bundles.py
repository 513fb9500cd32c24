"""Locating a bundle in the package, in a folder and in S3."""

from __future__ import annotations

import os

import pytest

from unit.model.bundle_files import BIN, DIGEST, FILES, XML, FakeObjects, manifest, sha, write_bundle
from worker.contract.errors import BundleError, BundleNotFound, DigestMismatch
from worker.contract.settings import ModelSettings
from worker.model.sources import bundle_sources, bundles

WITH_MANIFEST = {**FILES, "manifest.json": manifest(FILES)}
URL = "s3://models/nets/one"


def settings(source, tmp_path, **kwargs) -> ModelSettings:
    return ModelSettings(source=str(source), cache_dir=tmp_path / "cache", **kwargs)


# --- folders


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


ODD = {
    "weights outside": (
        lambda root: link(root / BIN, root.parent / "weights.bin"),
        "outside the bundle; copy the files",
    ),
    "a manifest outside": (
        lambda root: link(root / "manifest.json", root.parent / "weights.bin"),
        "outside the bundle; copy the files",
    ),
    "weights that are a device": (lambda root: link(root / BIN, "/dev/zero"), "is not a regular file"),
    "weights that are a pipe": (lambda root: pipe(root / BIN), "is not a regular file"),
    "a graph that is a pipe": (lambda root: pipe(root / XML), "is not a regular file"),
    "a manifest that is a pipe": (lambda root: pipe(root / "manifest.json"), "is not a regular file"),
    "a manifest that is nowhere": (lambda root: link(root / "manifest.json", "nowhere"), "is not a regular file"),
    "a manifest that is a folder": (lambda root: (root / "manifest.json").mkdir(), "is not a regular file"),
    "no weights": (lambda root: (root / BIN).write_bytes(b""), "is empty"),
    "no graph": (lambda root: (root / XML).write_bytes(b""), "is empty"),
    "weights without end": (lambda root: os.truncate(root / BIN, 1 << 42), "more than the 17,179,869,184 allowed"),
    "weights that link to themselves": (lambda root: link(root / BIN, root / BIN), f"lacks {BIN}"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.timeout(20)  # without the check some of them wait for ever
def test_a_bundle_of_anything_but_its_own_files_is_refused(tmp_path, kind):
    make, match = ODD[kind]
    root = write_bundle(tmp_path / "b", FILES)
    (tmp_path / "weights.bin").write_bytes(FILES[BIN])
    make(root)

    with pytest.raises(BundleError, match=match):
        bundles.locate(settings(root, tmp_path))


def test_links_within_a_bundle_are_followed(tmp_path):
    """As in a volume of Kubernetes."""
    root = write_bundle(tmp_path / "b", {f"data/{name}": content for name, content in FILES.items()})
    (root / "openvino_fp32").symlink_to("data/openvino_fp32")

    assert bundles.locate(settings(root, tmp_path)).variant.digest == DIGEST


def test_a_folder_with_a_manifest_is_verified(tmp_path):
    root = write_bundle(tmp_path / "b", WITH_MANIFEST)

    bundle = bundles.locate(settings(root, tmp_path))

    assert bundle.variant.digest == DIGEST
    assert (bundle.variant.xml, bundle.variant.bin) == (root / XML, root / BIN)
    assert (bundle.description, bundle.license, bundle.warnings) == ("a net", "MIT", ())
    assert bundle.reason.startswith("net 64 fp32: the only name; the only size")


def test_a_folder_without_a_manifest_loads_with_a_warning(tmp_path):
    root = write_bundle(tmp_path / "b", {**FILES, "openvino_fp32/notes.txt": b""})

    bundle = bundles.locate(settings(root, tmp_path))

    assert bundle.variant.digest == DIGEST
    left_out, no_manifest = bundle.warnings
    assert "openvino_fp32/notes.txt" in left_out
    assert f"has no manifest.json: the digest {DIGEST} was computed" in no_manifest


INT8 = {name.replace("fp32", "int8"): data for name, data in FILES.items()}
BAD = {XML.replace("fp32", "int8"): {"precision": "int8", "agreement": {"mae": 0.01, "iou": 0.8}}}


@pytest.mark.parametrize("place", ["folder", "S3"])
def test_a_variant_that_failed_its_comparison_is_not_located_for_speed(tmp_path, place):
    both = {**FILES, **INT8}
    files = {**both, "manifest.json": manifest(both, variants=BAD)}
    source = str(write_bundle(tmp_path / "b", files)) if place == "folder" else URL
    objects = FakeObjects(URL, files)

    bundle = bundles.locate(settings(source, tmp_path), objects, ("int8", "fp32"))
    asked = bundles.locate(settings(source, tmp_path, precision="int8"), objects, ("int8", "fp32"))

    assert bundle.variant.precision == "fp32" and bundle.variant.digest == DIGEST
    assert "not int8, whose masks differ from FP32 (IoU 0.8000 below 0.95)" in bundle.reason
    assert asked.variant.precision == "int8" and "WARNING: its masks differ" in asked.reason


@pytest.mark.parametrize("name", [XML, BIN])
def test_a_damaged_file_is_refused(tmp_path, name):
    root = write_bundle(tmp_path / "b", {**WITH_MANIFEST, name: b"damaged"})

    with pytest.raises(DigestMismatch) as caught:
        bundles.locate(settings(root, tmp_path))

    for part in (str(root / name), sha(FILES[name]), sha(b"damaged"), "copy the bundle again"):
        assert part in str(caught.value)


def test_a_variant_without_weights_is_refused(tmp_path):
    root = write_bundle(tmp_path / "b", {XML: FILES[XML]})

    with pytest.raises(BundleError, match=f"lacks {BIN} of net 64 fp32"):
        bundles.locate(settings(root, tmp_path))


def test_the_recommended_precision_is_taken(tmp_path):
    int8 = {name.replace("fp32", "int8"): data for name, data in FILES.items()}
    root = write_bundle(tmp_path / "b", FILES | int8)

    assert bundles.locate(settings(root, tmp_path), recommended=("int8", "fp32")).variant.precision == "int8"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "is not a folder; set MASKMILL_MODEL__SOURCE"),
        ("ftp://someone/something", "is not a model source; use builtin:NAME, a folder, s3://bucket/prefix or hf://"),
        ("hf://someone", "is not a repository of the hub; write hf://owner/name"),
        ("hf://someone/../else", "is not a repository of the hub"),
        ("s3://", "not an S3 URL"),
        ("builtin:no-such-model", "no built-in model 'no-such-model'; available: "),
        ("builtin:", "no built-in model ''"),
        ("builtin:../builtin", "no built-in model"),
    ],
)
def test_an_invalid_source_is_refused(tmp_path, source, message):
    with pytest.raises(BundleNotFound, match=message):
        bundles.locate(settings(source, tmp_path), FakeObjects(URL, {}))


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "b").mkdir()

    with pytest.raises(BundleNotFound, match="holds no model"):
        bundles.locate(settings(tmp_path / "b", tmp_path))


# --- the package


def test_a_built_in_bundle_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_sources, "builtin_root", lambda: tmp_path)
    root = write_bundle(tmp_path / "mini", WITH_MANIFEST)
    (tmp_path / "__pycache__").mkdir()

    assert bundles.locate(settings("builtin:mini", tmp_path)).variant.xml == root / XML
    with pytest.raises(BundleNotFound, match=r"available: mini$"):
        bundles.locate(settings("builtin:__pycache__", tmp_path))


# --- S3


def test_a_bundle_in_s3_is_fetched_once(tmp_path):
    objects = FakeObjects(URL, {**WITH_MANIFEST, "openvino_int8/net_64x64_int8.xml": b"not wanted"})
    asked = settings(URL, tmp_path)

    first = bundles.locate(asked, objects, ("fp32",))
    second = bundles.locate(asked, objects, ("fp32",))

    assert first == second
    assert first.variant.digest == DIGEST
    assert first.variant.xml.read_bytes() == FILES[XML]
    assert first.variant.xml.is_relative_to(tmp_path / "cache")
    assert first.warnings == ()
    assert objects.downloads == ["manifest.json", XML, BIN, "manifest.json"]


def test_a_bundle_in_s3_without_a_manifest_is_used_with_a_warning(tmp_path):
    objects = FakeObjects(URL, FILES)

    bundle = bundles.locate(settings(URL, tmp_path), objects)
    again = bundles.locate(settings(URL, tmp_path), objects)

    assert bundle == again
    assert bundle.variant.digest == DIGEST
    assert "has no manifest.json" in bundle.warnings[0]
    assert objects.downloads == [XML, BIN]


@pytest.mark.parametrize("files", [FILES, WITH_MANIFEST], ids=["recorded at download", "manifest"])
@pytest.mark.parametrize("name", [XML, BIN])
def test_a_cached_copy_is_verified_before_each_use(tmp_path, files, name):
    objects = FakeObjects(URL, files)
    bundle = bundles.locate(settings(URL, tmp_path), objects)
    cached = bundle.variant.xml if name == XML else bundle.variant.bin
    cached.write_bytes(b"damaged since")

    with pytest.raises(DigestMismatch) as caught:
        bundles.locate(settings(URL, tmp_path), objects)

    for part in (str(cached), sha(FILES[name]), sha(b"damaged since"), "delete ", "it will be fetched again"):
        assert part in str(caught.value)


@pytest.mark.parametrize("described", [False, True], ids=["recorded at download", "manifest"])
def test_a_replaced_bundle_is_fetched_again(tmp_path, described):
    def files(weights: bytes) -> dict[str, bytes]:
        plain = {XML: FILES[XML], BIN: weights}
        return {**plain, "manifest.json": manifest(plain)} if described else plain

    old = bundles.locate(settings(URL, tmp_path), FakeObjects(URL, files(b"old weights")))
    new = bundles.locate(settings(URL, tmp_path), FakeObjects(URL, files(b"new weights")))

    assert old.variant.digest != new.variant.digest
    assert old.variant.bin.read_bytes() == b"old weights"
    assert new.variant.bin.read_bytes() == b"new weights"


def test_s3_needs_a_connection(tmp_path):
    with pytest.raises(BundleError, match="is in S3, but no S3 connection was given"):
        bundles.locate(settings(URL, tmp_path))


def test_a_listing_stops_at_the_limit_of_a_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_sources, "MAX_OBJECTS", 5)
    objects = FakeObjects(URL, {f"photo-{i}.jpg": b"" for i in range(7)})

    with pytest.raises(BundleNotFound, match="more than 5 objects"):
        bundles.locate(settings(URL, tmp_path), objects)


def test_the_variants_can_be_listed_without_fetching(tmp_path):
    objects = FakeObjects(URL, WITH_MANIFEST)

    listing = bundles.available(settings(URL, tmp_path), objects)

    assert listing.labels() == "net 64 fp32"
    assert objects.downloads == []


def test_a_folder_with_an_onnx_file_says_how_to_import_it(tmp_path):
    (tmp_path / "u2netp.onnx").write_bytes(b"x")
    with pytest.raises(
        BundleNotFound, match=r"holds u2netp\.onnx.*`worker model import .*/u2netp\.onnx --output BUNDLE`"
    ):
        bundles.locate(ModelSettings(source=str(tmp_path)))
    with pytest.raises(
        BundleNotFound, match=r"u2netp\.onnx is one network, not a bundle: import it with `worker model"
    ):
        bundles.locate(ModelSettings(source=str(tmp_path / "u2netp.onnx")))
