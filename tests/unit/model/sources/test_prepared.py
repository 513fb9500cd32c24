"""Prepared networks are found by name, size and digest; `default` is the prepared network or the built-in one."""

from __future__ import annotations

import pytest

from unit.model.bundle_files import FILES, manifest, write_bundle
from worker.contract.errors import BundleNotFound
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings
from worker.model.sources import bundles, catalogue, prepared
from worker.model.sources.prepared import Prepared

OTHER = "0" * 64


def prepare(cache, name="u2netp", side=None, sha256=None):
    """Put a bundle of a few bytes where the preparation of a network would."""
    entry = catalogue.get(name)
    size = InputSize.square(side) if side else entry.input_size
    digest = sha256 or entry.sha256 or "1" * 64
    folder = prepared.home(cache, name) / prepared.bundle_name(digest, size)
    write_bundle(folder, {**FILES, "manifest.json": manifest(FILES)})
    prepared.write_record(
        cache,
        Prepared(name=name, input_size=size, sha256=digest, source="x", verified_by="x", bundle=folder.name),
    )
    return folder


def of(source, cache, **more):
    return ModelSettings(source=source, cache_dir=cache, **more)


def test_a_prepared_network_is_located_by_its_name(tmp_path):
    folder = prepare(tmp_path)

    bundle = bundles.locate(of("u2netp", tmp_path))

    assert (bundle.source, bundle.variant.xml.parents[1], bundle.warnings) == ("u2netp", folder, ())


def test_a_damaged_bundle_is_refused_with_the_remedy(tmp_path):
    folder = prepare(tmp_path)
    next(folder.rglob("*.bin")).write_bytes(b"damaged")

    with pytest.raises(bundles.BundleError, match=r"SHA-256 expected .* --refresh"):
        bundles.locate(of("u2netp", tmp_path))


def test_a_network_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(BundleNotFound, match=r"u2netp is not prepared .*`worker model fetch u2netp` once"):
        bundles.locate(of("u2netp", tmp_path))


def test_an_unclear_licence_is_a_warning_of_the_bundle(tmp_path):
    prepare(tmp_path, "isnet-general-use")

    (warning,) = bundles.locate(of("isnet-general-use", tmp_path)).warnings

    assert "does not clearly permit commercial use" in warning and "DIS5K" in warning


def test_a_bundle_of_another_file_than_that_of_the_catalogue_does_not_count(tmp_path):
    prepare(tmp_path, sha256=OTHER)

    with pytest.raises(BundleNotFound, match="not prepared"):
        bundles.locate(of("u2netp", tmp_path))


def test_the_size_of_the_settings_decides_else_that_of_the_catalogue(tmp_path):
    at = {side: prepare(tmp_path, "birefnet-lite", side) for side in (512, 1024, 2048)}
    entry = catalogue.get("birefnet-lite")

    assert prepared.find(entry, of("birefnet-lite", tmp_path)) == at[1024]
    assert prepared.find(entry, of("birefnet-lite", tmp_path, size=512)) == at[512]
    assert prepared.find(entry, of("birefnet-lite", tmp_path, size=256)) is None
    with pytest.raises(BundleNotFound, match=r"not prepared at 256 .*`worker model fetch birefnet-lite --size 256`"):
        bundles.locate(of("birefnet-lite", tmp_path, size=256))


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1, "bundle": "../../etc"}'])
def test_an_unreadable_record_is_ignored(tmp_path, text):
    home = prepared.home(tmp_path, "u2netp")
    home.mkdir(parents=True)
    (home / "320x320.json").write_text(text)

    assert prepared.find(catalogue.get("u2netp"), of("u2netp", tmp_path)) is None


def test_a_record_whose_bundle_was_removed_is_ignored(tmp_path):
    (prepare(tmp_path) / "manifest.json").unlink()

    assert prepared.find(catalogue.get("u2netp"), of("u2netp", tmp_path)) is None


def test_default_is_the_prepared_network(tmp_path):
    folder = prepare(tmp_path)

    assert bundles.locate(of("default", tmp_path)).variant.xml.parents[1] == folder
    assert prepared.resolve_default(of("default", tmp_path)).why == "u2netp, the default network"


def test_default_falls_back_to_the_built_in_network_and_says_how_to_do_better(tmp_path):
    bundle = bundles.locate(of("default", tmp_path))

    assert bundle.source == "builtin:starter"
    (warning,) = bundle.warnings
    assert "`worker model fetch u2netp`" in warning and "\n" not in warning


def test_other_sources_are_kept(tmp_path):
    model = of("builtin:contrast", tmp_path)

    assert prepared.resolve_default(model).model is model
