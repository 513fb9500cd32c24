"""A network of the catalogue is fetched, imported and recorded once; a stand-in takes the place of the importer."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest

from unit.model.bundle_files import FILES, manifest, write_bundle
from worker.contract import settings
from worker.contract.errors import BundleError, BundleNotFound, SettingsError, SetupError
from worker.contract.input_size import InputSize
from worker.convert import named, named_import
from worker.convert.named import Preparation, Watch, fetch_named
from worker.model.sources import bundles, catalogue, prepared
from worker.model.sources.catalogue import LocalFile

DATA = b"an onnx file"
SHA = hashlib.sha256(DATA).hexdigest()


class StandIn:
    """Writes a bundle of a few bytes and keeps the orders."""

    def __init__(self) -> None:
        self.orders = []

    def __call__(self, order, on_step) -> None:
        assert order.file.read_bytes() == DATA
        self.orders.append(order)
        write_bundle(order.output, {**FILES, "manifest.json": manifest(FILES)})


@pytest.fixture
def importer():
    return StandIn()


@pytest.fixture
def entry(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(DATA)
    facts = {"file": "net.onnx", "bytes": len(DATA), "sha256": SHA}
    known = catalogue.get("u2netp").model_copy(
        update=facts | {"sources": (LocalFile(kind="file", path=str(path)),), "any_size": True}
    )
    monkeypatch.setattr(catalogue, "networks", lambda: (known,))
    return known


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKMILL_MODEL__CACHE_DIR", str(tmp_path / "cache"))
    return settings.load()


def test_a_network_is_prepared_and_then_located(entry, config, importer):
    steps = []

    folder = fetch_named(entry, config, Watch(on_step=steps.append), importer=importer)

    (order,) = importer.orders
    assert (order.entry, order.size, order.sha256, order.output) == (entry, entry.input_size, SHA, folder)
    assert steps == ["fetching net.onnx", "importing net.onnx at 320x320; verified by SHA-256 of the catalogue"]
    model = config.model.model_copy(update={"source": "u2netp"})
    assert bundles.locate(model).variant.xml.parents[1] == folder


def test_a_prepared_network_needs_neither_source_nor_importer(entry, config, importer, tmp_path):
    first = fetch_named(entry, config, Watch(), importer=importer)
    (tmp_path / "net.onnx").unlink()

    assert fetch_named(entry, config, Watch()) == first
    with pytest.raises(BundleNotFound, match="there is no file"):
        fetch_named(entry, config, Watch(), Preparation(refresh=True), importer=importer)
    assert len(importer.orders) == 1


def test_each_size_has_a_bundle(entry, config, importer):
    default = fetch_named(entry, config, Watch(), importer=importer)
    other = fetch_named(entry, config, Watch(), Preparation(InputSize(64, 96)), importer=importer)

    assert [folder.name.partition("-")[2] for folder in (default, other)] == ["320x320", "64x96"]
    assert fetch_named(entry, config, Watch(), importer=importer) == default


@pytest.mark.parametrize(
    ("any_size", "size", "reason"),
    [(False, InputSize(512, 512), "runs at 320x320 only"), (True, InputSize(50, 64), "must be multiples of 32")],
)
def test_a_size_that_the_network_does_not_accept(entry, config, any_size, size, reason):
    known = entry.model_copy(update={"any_size": any_size})

    with pytest.raises(SettingsError, match=reason):
        fetch_named(known, config, Watch(), Preparation(size), importer=StandIn())


def test_an_import_that_fails_leaves_no_record(entry, config):
    def broken(order, on_step):
        raise BundleError("not a network")

    with pytest.raises(BundleError, match="not a network"):
        fetch_named(entry, config, Watch(), importer=broken)
    assert prepared.find(entry, config.model) is None


def test_an_import_without_a_manifest_is_refused(entry, config):
    with pytest.raises(BundleError, match=r"wrote no manifest.json"):
        fetch_named(entry, config, Watch(), importer=lambda order, on_step: order.output.mkdir())


def test_another_edition_takes_the_place_of_the_first(entry, config, importer):
    old = fetch_named(entry, config, Watch(), importer=importer)
    write_bundle(old.parent / "0000000000000000-320x320", FILES)

    new = fetch_named(entry, config, Watch(), Preparation(refresh=True), importer=importer)

    assert [p.name for p in new.parent.iterdir() if p.is_dir()] == [new.name]


def test_a_cache_that_cannot_be_written_is_named(entry, config, importer, tmp_path):
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(BundleError, match="MASKMILL_MODEL__CACHE_DIR"):
        fetch_named(entry, config, Watch(), importer=importer)


def test_a_missing_package_is_named_before_anything_is_fetched(entry, config, monkeypatch):
    monkeypatch.setattr(named_import.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(named.published_file, "fetch", lambda *_: pytest.fail("fetched"))

    with pytest.raises(SetupError, match=r"pip install 'maskmill\[import\]'"):
        fetch_named(entry, config, Watch())


@pytest.mark.parametrize(
    ("int8", "expected"),
    [
        ("yes", ("fp32", "int8")),
        ("with_care", ("fp32", "int8")),
        ("unknown", ("fp32", "int8")),
        ("no", ("fp32",)),
    ],
)
def test_int8_is_tried_unless_it_is_known_not_to_hold(entry, config, importer, int8, expected):
    known = entry.model_copy(update={"quantisation": entry.quantisation.model_copy(update={"int8": int8})})

    fetch_named(known, config, Watch(), importer=importer)

    assert importer.orders[0].precisions == expected


@pytest.fixture
def order(entry, config, importer):
    fetch_named(entry, config, Watch(), importer=importer)
    return importer.orders[0]


@pytest.mark.parametrize(
    ("missing", "said"),
    [("nncf", r"NNCF: pip install 'maskmill[convert]'"), ("skimage", r"scikit-image: pip install 'maskmill[import]'")],
)
def test_without_a_package_int8_is_left_out_and_announced(order, monkeypatch, missing, said):
    steps = []
    assert named_import.precisions_here(order, steps.append) == ("fp32", "int8") and not steps

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))

    assert named_import.precisions_here(order, steps.append) == ("fp32",)
    (line,) = steps
    assert line.startswith("INT8 is left out, because") and said in line and "--refresh" in line
