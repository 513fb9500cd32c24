"""The choice of a variant, and the reason given for it."""

from __future__ import annotations

import pytest

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings
from worker.model.format.layout import Candidate, Listing
from worker.model.format.variant import choose


def listing(*labels: str) -> Listing:
    """`listing("net 512 int8")`."""
    split = (label.split() for label in labels)
    return Listing(tuple(Candidate(name, InputSize.parse(size), precision) for name, size, precision in split))


FULL = listing("net 512 fp32", "net 512 int8", "net 1024 fp32", "net 1024 int8")


@pytest.mark.parametrize(
    ("settings", "recommended", "expected", "why"),
    [
        ({}, ("int8", "fp32"), "net 1024 int8", "largest size of 512, 1024; int8 is what this CPU runs best"),
        ({}, ("fp32", "int8"), "net 1024 fp32", "fp32 is what this CPU runs best"),
        ({"size": 512}, ("int8",), "net 512 int8", "size as requested"),
        ({"precision": "fp32"}, ("int8",), "net 1024 fp32", "precision as requested"),
        ({"name": "net"}, ("int8",), "net 1024 int8", "name as requested"),
        ({}, (), "net 1024 fp32", "fp32 is the most exact precision available"),
        ({}, ("int8wo", "int8"), "net 1024 int8", "FALLBACK to int8: this CPU prefers int8wo"),
        ({}, ("int8wo", "fp16"), "net 1024 fp32", "FALLBACK to fp32: this CPU prefers int8wo, then fp16"),
    ],
)
def test_name_then_size_then_precision(settings, recommended, expected, why):
    choice = choose(FULL, ModelSettings(source="/b", **settings), recommended)

    assert choice.candidate.label == expected
    assert why in choice.reason


FAILED = {
    "openvino_int8/net_1024x1024_int8.xml": "IoU 0.8500 below 0.95",
}


def test_a_variant_that_failed_its_comparison_is_not_chosen_for_speed():
    choice = choose(FULL, ModelSettings(source="/b"), ("int8", "fp32"), FAILED)

    assert choice.candidate.label == "net 1024 fp32"
    assert "not int8, whose masks differ from FP32 (IoU 0.8500 below 0.95)" in choice.reason
    other = choose(FULL, ModelSettings(source="/b", size=512), ("int8", "fp32"), FAILED)
    assert other.candidate.label == "net 512 int8"


def test_a_variant_that_failed_runs_if_it_is_requested_or_the_only_one_and_the_reason_warns():
    requested = choose(FULL, ModelSettings(source="/b", precision="int8"), ("int8",), FAILED)
    only = choose(listing("net 1024 int8"), ModelSettings(source="/b"), ("int8",), FAILED)

    for choice in (requested, only):
        assert choice.candidate.label == "net 1024 int8"
        assert choice.reason.endswith("WARNING: its masks differ from FP32 (IoU 0.8500 below 0.95)")


def test_the_largest_size_is_that_of_the_requested_precision():
    there = listing("net 512 int8", "net 1024 fp32")

    choice = choose(there, ModelSettings(source="/b", precision="int8"), ("fp32",))

    assert choice.candidate.label == "net 512 int8"


def test_several_names_need_one_to_be_set():
    there = listing("a 64 fp32", "b 64 fp32")

    with pytest.raises(BundleNotFound, match="several models: a, b; set MASKMILL_MODEL__NAME"):
        choose(there, ModelSettings(source="/b"), ())
    assert choose(there, ModelSettings(source="/b", name="b"), ()).candidate.name == "b"


@pytest.mark.parametrize(
    ("settings", "setting"),
    [({"name": "other"}, "NAME"), ({"size": 256}, "SIZE"), ({"precision": "fp16"}, "PRECISION")],
)
def test_an_unavailable_variant_is_refused_with_the_available_ones(settings, setting):
    with pytest.raises(BundleNotFound) as caught:
        choose(FULL, ModelSettings(source="/b", **settings), ("int8",))

    assert "net 512 int8, net 1024 fp32" in str(caught.value)
    assert f"MASKMILL_MODEL__{setting}" in str(caught.value)


def test_an_empty_source_error_shows_the_file_names_of_a_bundle_and_the_unrecognised_files():
    with pytest.raises(BundleNotFound, match=r"/b holds no model.*openvino_int8/.*not recognised: odd\.xml"):
        choose(Listing((), ("odd.xml",)), ModelSettings(source="/b"), ())


def test_a_variant_without_its_weights_is_not_replaced_by_another():
    there = Listing(
        (
            Candidate("net", InputSize.square(512), "int8"),
            Candidate("net", InputSize.square(1024), "int8", missing="openvino_int8/x.bin"),
        )
    )

    with pytest.raises(BundleError, match=r"lacks openvino_int8/x\.bin"):
        choose(there, ModelSettings(source="/b"), ("int8",))
    assert choose(there, ModelSettings(source="/b", size=512), ("int8",)).candidate.size == InputSize.square(512)


def test_the_largest_size_is_the_one_with_most_pixels():
    there = listing("net 1440x2560 int8", "net 1504 int8")

    choice = choose(there, ModelSettings(source="/b"), ("int8",))

    assert choice.candidate.label == "net 1440x2560 int8"
    assert "largest size of 1504, 1440x2560" in choice.reason


def test_a_size_that_is_not_square_can_be_requested():
    there = listing("net 96x128 int8", "net 128x96 int8")

    assert choose(there, ModelSettings(source="/b", size="128x96"), ()).candidate.label == "net 128x96 int8"
    with pytest.raises(BundleNotFound, match="no model of size 64x96 "):
        choose(there, ModelSettings(source="/b", size="64x96"), ())
