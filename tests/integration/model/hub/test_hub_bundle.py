"""Bundles on the hub: only the variant that will run is fetched, and it is verified."""

from __future__ import annotations

import json

import pytest

from support.hub import Hub, RunningHub
from unit.model.bundle_files import manifest, sha
from worker.contract.errors import BundleNotFound, DigestMismatch, HubUnavailable
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings
from worker.model.sources import bundles

REPO = "someone/birefnet-openvino"
SIZES, PRECISIONS = (1024, 512), ("fp32", "fp16", "int8", "int8wo")


def published() -> dict[str, bytes]:
    """The published set: four precisions, two sizes, no manifest; small graphs, large weights."""
    files = {"README.md": b"# a card", ".gitattributes": b"*.bin filter=lfs"}
    for precision in PRECISIONS:
        for size in SIZES:
            stem = f"openvino_{precision}/birefnet_lite_{size}x{size}_{precision}"
            files[f"{stem}.xml"] = f"<net {precision}/>".encode()
            files[f"{stem}.bin"] = f"{precision} {size} ".encode() * 50
    return files


def locate(tmp_path, source=f"hf://{REPO}", **asked):
    return bundles.locate(ModelSettings(source=source, cache_dir=tmp_path, **asked), None, ("int8", "fp32"))


def fetched(hub: Hub) -> list[str]:
    return [name.split("/", 3)[3] for name in hub.downloads()]


def test_the_published_set_loads(hub: Hub, tmp_path):
    files = published()
    commit = hub.publish(REPO, files)

    bundle = locate(tmp_path)

    stem = "openvino_int8/birefnet_lite_1024x1024_int8"
    assert fetched(hub) == [f"{stem}.xml", f"{stem}.bin"]
    assert bundle.variant.label == "birefnet_lite 1024 int8"
    assert bundle.variant.bin.read_bytes() == files[f"{stem}.bin"]
    assert bundle.source == f"hf://{REPO}@{commit}"
    assert bundle.variant.digest == sha(f"{sha(files[f'{stem}.xml'])}\n{sha(files[f'{stem}.bin'])}\n".encode())
    (warning,) = bundle.warnings
    assert "has no manifest.json" in warning
    assert warning.endswith(f"checked against the hub, for commit {commit} only")


def test_it_is_fetched_once(hub: Hub, tmp_path):
    hub.publish(REPO, published())

    assert locate(tmp_path) == locate(tmp_path)
    assert len(hub.downloads()) == 2


def test_a_bundle_with_a_manifest_is_checked_against_it(hub: Hub, tmp_path):
    files = published()
    hub.publish(REPO, {**files, "manifest.json": manifest(files)})

    bundle = locate(tmp_path, size=512, precision="fp16")

    assert (bundle.variant.size, bundle.variant.precision) == (InputSize.square(512), "fp16")
    assert (bundle.license, bundle.warnings) == ("MIT", ())
    assert len(hub.downloads()) == 3


def test_a_manifest_that_contradicts_its_repository(hub: Hub, tmp_path):
    files = published()
    other = {name: data + b"other" for name, data in files.items()}
    hub.publish(REPO, {**files, "manifest.json": manifest(other)})

    with pytest.raises(DigestMismatch, match="contradicts itself"):
        locate(tmp_path)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_copy_damaged_in_the_cache_is_refused(hub: Hub, tmp_path, suffix):
    hub.publish(REPO, published())
    path = locate(tmp_path).variant.xml.with_suffix(suffix)
    path.write_bytes(b"damaged since")

    with pytest.raises(DigestMismatch, match=r"delete .*, it will be fetched again"):
        locate(tmp_path)


def test_without_a_network_a_complete_variant_in_the_cache_is_used(running: RunningHub, tmp_path):
    commit = running.hub.publish(REPO, published())
    before = locate(tmp_path)
    running.stop()

    after = locate(tmp_path)

    assert after.variant == before.variant
    assert after.warnings[0].startswith(f"FALLBACK to the copy of hf://{REPO}@{commit} in the cache: the hub http")
    with pytest.raises(HubUnavailable, match=r"fp32\.xml of commit .* is not in the cache"):
        locate(tmp_path, precision="fp32")


def test_a_repository_without_a_bundle_is_refused(hub: Hub, tmp_path):
    hub.publish(REPO, {"model.safetensors": b"x" * 100})

    with pytest.raises(BundleNotFound, match="holds no model"):
        locate(tmp_path)


def test_a_survey_fetches_the_manifest_only(hub: Hub, tmp_path):
    files = published()
    text = json.loads(manifest(files)) | {"agreement": {"int8": {"iou": 0.99}}}
    commit = hub.publish(REPO, {**files, "manifest.json": json.dumps(text).encode()})

    survey = bundles.survey(ModelSettings(source=f"hf://{REPO}", cache_dir=tmp_path))

    assert fetched(hub) == ["manifest.json"]
    assert survey.source.endswith(commit)
    assert len(survey.listing.candidates) == 8
    assert survey.facts["agreement"] == {"int8": {"iou": 0.99}}
    assert survey.root is None
