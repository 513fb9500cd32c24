"""File names of a bundle."""

from __future__ import annotations

import pytest

from worker.contract.input_size import InputSize
from worker.model.format.layout import Candidate, read_listing

PUBLISHED = [
    f"openvino_{precision}/birefnet_lite_{side}x{side}_{precision}.{suffix}"
    for precision in ("fp32", "fp16", "int8", "int8wo")
    for side in (1024, 512)
    for suffix in ("xml", "bin")
]


def test_the_published_set_is_read_completely():
    listing = read_listing([*PUBLISHED, "README.md", ".gitattributes"])

    assert len(listing.candidates) == 8
    assert {c.name for c in listing.candidates} == {"birefnet_lite"}
    assert not listing.left_out
    assert not listing.has_manifest
    assert all(not c.missing for c in listing.candidates)
    assert [c.label for c in listing.candidates][:2] == ["birefnet_lite 512 fp32", "birefnet_lite 512 fp16"]


def test_paths_are_rebuilt_from_a_candidate():
    (candidate,) = read_listing(PUBLISHED[-2:]).candidates

    assert [candidate.xml, candidate.bin] == PUBLISHED[-2:]


@pytest.mark.parametrize(
    "path",
    [
        "openvino_int8/net_512x512_fp32.xml",  # contradicts its folder
        "openvino_int8/net_512x250_int8.xml",  # the width is not a multiple of 32
        "openvino_int8/net_500x500_int8.xml",  # not a multiple of 32
        "openvino_int8/net_0512x0512_int8.xml",
        "openvino_int8/net_512x512_int8.onnx",
        "openvino_int8/net_512_int8.xml",
        "openvino_int8/_512x512_int8.xml",
        "openvino_int8/net_512x512_int8.xml.part",
        "openvino_int4/net_512x512_int4.xml",
        "openvino_int8/deeper/net_512x512_int8.xml",
        "openvino_int8/../net_512x512_int8.xml",
        "openvino_int8/net_\u0665\u0661\u0662x\u0665\u0661\u0662_int8.xml",  # digits outside ASCII
        "net_512x512_int8.xml",
    ],
)
def test_a_name_outside_the_grammar_is_left_out_and_listed(path):
    listing = read_listing([path])

    assert listing.candidates == ()
    assert listing.left_out == (path,)


def test_other_files_are_ignored():
    listing = read_listing(["README.md", "photos/net_512x512_int8.xml", "manifest.json"])

    assert listing.candidates == ()
    assert listing.left_out == ()
    assert listing.has_manifest


@pytest.mark.parametrize("suffix", ["xml", "bin"])
def test_a_missing_half_is_reported(suffix):
    stem = "openvino_fp32/net_64x64_fp32"
    other = "bin" if suffix == "xml" else "xml"

    listing = read_listing([f"{stem}.{suffix}"])

    assert listing.candidates == (Candidate("net", InputSize.square(64), "fp32", missing=f"{stem}.{other}"),)


def test_a_name_may_hold_digits_and_underscores():
    (candidate,) = read_listing(["openvino_fp16/a_64x64_b-2.1_96x96_fp16.xml"]).candidates

    assert (candidate.name, candidate.size) == ("a_64x64_b-2.1", InputSize.square(96))


def test_the_height_comes_first_in_a_file_name():
    paths = [f"openvino_int8/net_1440x2560_int8.{suffix}" for suffix in ("xml", "bin")]

    (candidate,) = read_listing(paths).candidates

    assert candidate == Candidate("net", InputSize(1440, 2560), "int8")
    assert (candidate.xml, candidate.bin) == tuple(paths)
    assert candidate.label == "net 1440x2560 int8"
