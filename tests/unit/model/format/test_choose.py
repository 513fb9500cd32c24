"""Which variant of a bundle runs, and the words that say why."""

from __future__ import annotations

import pytest

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.settings import ModelSettings
from worker.model.format.layout import Candidate, Listing
from worker.model.format.variant import choose


def listing(*labels: str) -> Listing:
    """`listing("net 512 int8")`."""
    split = (label.split() for label in labels)
    return Listing(tuple(Candidate(name, int(size), precision) for name, size, precision in split))


FULL = listing("net 512 fp32", "net 512 int8", "net 1024 fp32", "net 1024 int8")


@pytest.mark.parametrize(
    ("settings", "recommended", "expected", "why"),
    [
        ({}, ("int8", "fp32"), "net 1024 int8", "largest size of 512, 1024; int8 is what this CPU runs best"),
        ({}, ("fp32", "int8"), "net 1024 fp32", "fp32 is what this CPU runs best"),
        ({"size": 512}, ("int8",), "net 512 int8", "size asked for"),
        ({"precision": "fp32"}, ("int8",), "net 1024 fp32", "precision asked for"),
        ({"name": "net"}, ("int8",), "net 1024 int8", "name asked for"),
        ({}, (), "net 1024 fp32", "fp32 is the most exact precision there"),
        ({}, ("int8wo", "int8"), "net 1024 int8", "FALLBACK to int8: this CPU would rather run int8wo"),
        ({}, ("int8wo", "fp16"), "net 1024 fp32", "FALLBACK to fp32: this CPU would rather run int8wo, then fp16"),
    ],
)
def test_name_then_size_then_precision(settings, recommended, expected, why):
    choice = choose(FULL, ModelSettings(source="/b", **settings), recommended)

    assert choice.candidate.label == expected
    assert why in choice.reason


def test_the_largest_size_is_that_of_the_precision_asked_for():
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
def test_what_is_not_there_is_refused_with_what_is(settings, setting):
    with pytest.raises(BundleNotFound) as caught:
        choose(FULL, ModelSettings(source="/b", **settings), ("int8",))

    assert "net 512 int8, net 1024 fp32" in str(caught.value)
    assert f"MASKMILL_MODEL__{setting}" in str(caught.value)


def test_an_empty_place_says_how_a_bundle_looks_and_what_was_not_understood():
    with pytest.raises(BundleNotFound, match=r"/b holds no model.*openvino_int8/.*not understood: odd\.xml"):
        choose(Listing((), ("odd.xml",)), ModelSettings(source="/b"), ())


def test_a_variant_without_its_weights_is_not_swapped_for_another():
    there = Listing((Candidate("net", 512, "int8"), Candidate("net", 1024, "int8", missing="openvino_int8/x.bin")))

    with pytest.raises(BundleError, match=r"lacks openvino_int8/x\.bin"):
        choose(there, ModelSettings(source="/b"), ("int8",))
    assert choose(there, ModelSettings(source="/b", size=512), ("int8",)).candidate.size == 512
