"""What an import is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.errors import SettingsError
from worker.convert.importing import Family, ImportRequest, LicenceFacts
from worker.convert.importing.families import Traits, recognise


def request(**given) -> ImportRequest:
    return ImportRequest(Path("a.onnx"), Path("b"), **given)


@pytest.mark.parametrize(
    ("mean", "scale", "expected"),
    [
        ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), ((127.5,) * 3, (255.0,) * 3)),
        ((128, 128, 128), (256, 256, 256), ((128.0,) * 3, (256.0,) * 3)),
        ((123, 116, 103), (1, 1, 1), ((123.0, 116.0, 103.0), (1.0,) * 3)),
        ((0, 0, 0), (255, 255, 255), ((0.0,) * 3, (255.0,) * 3)),
    ],
)
def test_the_scale_of_the_normalisation_is_told_from_its_numbers(mean, scale, expected):
    assert request(mean=mean, scale=scale).normalisation() == expected


def test_a_deviation_of_nothing_is_refused():
    with pytest.raises(SettingsError, match="every deviation must be above 0"):
        request(mean=(0, 0, 0), scale=(1, 0, 1)).normalisation()
    assert request().normalisation() is None


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        (LicenceFacts.of("Apache-2.0"), ""),
        (LicenceFacts.of("CC-BY-NC-4.0"), "CC-BY-NC-4.0, forbids commercial use"),
        (LicenceFacts.of("MPL-2.0"), "is MPL-2.0, and whether it permits commercial use is unclear"),
        (LicenceFacts.of(None), "is not stated, and whether it permits commercial use is unclear"),
    ],
)
def test_a_licence_that_forbids_or_is_unclear_is_said(licence, said):
    assert said in licence.warning and bool(licence.warning) == bool(said)


@pytest.mark.parametrize(
    ("traits", "family"),
    [
        (Traits(7, 7, {}), Family.U2NET),
        (Traits(12, 6, {}), Family.ISNET),
        (Traits(1, 1, {"Softmax": 12}), Family.BIREFNET),
        (Traits(1, 1, {"Softmax": 24}), Family.BIREFNET),
        (Traits(1, 1, {"MVN": 3, "GroupConvolution": 9}), Family.MODNET),
        (Traits(1, 1, {"Softmax": 1}), None),
        (Traits(2, 2, {}), None),
    ],
)
def test_a_family_is_told_from_its_traits(traits, family):
    found = recognise(traits)

    assert (found[0] if found else None) is family
