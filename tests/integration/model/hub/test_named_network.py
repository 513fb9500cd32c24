"""A network of the catalogue whose file is on the hub: its digest is the one that the hub gives."""

from __future__ import annotations

import pytest

from unit.model.bundle_files import FILES, manifest, write_bundle
from worker.contract import settings
from worker.contract.errors import BundleNotFound
from worker.convert.named import Watch, fetch_named
from worker.model.sources import bundles, catalogue

REPO = "ZhengPeng7/BiRefNet_lite"
CHECKPOINT = b"weights" * 100


@pytest.fixture
def entry():
    return catalogue.get("birefnet-lite").model_copy(update={"bytes": len(CHECKPOINT)})


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path / "cache"))
    return settings.load()


def stand_in(order, on_step):
    assert order.file.read_bytes() == CHECKPOINT
    write_bundle(order.output, {**FILES, "manifest.json": manifest(FILES)})


def test_a_checkpoint_is_fetched_from_the_hub_and_needs_it_no_more(hub, entry, config):
    hub.publish(REPO, {"model.safetensors": CHECKPOINT})

    folder = fetch_named(entry, config, Watch(), importer=stand_in)
    hub.status = 503

    assert fetch_named(entry, config, Watch()) == folder
    model = config.model.model_copy(update={"source": "birefnet-lite"})
    assert bundles.locate(model).variant.xml.parents[1] == folder


def test_a_checkpoint_of_another_size_is_refused_with_the_remedy(hub, entry, config):
    hub.publish(REPO, {"model.safetensors": CHECKPOINT + b"another edition"})

    with pytest.raises(BundleNotFound, match=r"expected 700 bytes, got 715; .* of that one with --sha256"):
        fetch_named(entry, config, Watch(), importer=stand_in)


def test_a_damaged_checkpoint_is_refused(hub, entry, config):
    hub.publish(REPO, {"model.safetensors": CHECKPOINT})
    hub.served["model.safetensors"] = b"WEIGHTS" * 100

    with pytest.raises(BundleNotFound, match="SHA-256 expected"):
        fetch_named(entry, config, Watch(), importer=stand_in)
