"""Real photographs rendered with every option, compared with reviewed pictures (`tests/data/golden`).

After an intended change, run `python -m tests.unit.images.test_render` in the root of the repository to write them
again, and look at each of them before you commit.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.photographs import CUP, FOLDER, HEAD, photograph
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import Picture, decode
from worker.images.render import render
from worker.images.subject import decode_target

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
MASK, CUTOUT, COMPOSITE = OutputKind
SIDE = 104
"""Of the kept pictures: large enough to see a rim or a shift, small enough to keep."""

CASES = {
    "cup-mask": ("coffee.png", CUP, {"outputs": (MASK,)}),
    "cup-cutout": ("coffee.png", CUP, {"outputs": (CUTOUT,)}),
    "cup-cutout-refined": ("coffee.png", CUP, {"outputs": (CUTOUT,), "refine": True}),
    "cup-cutout-threshold": ("coffee.png", CUP, {"outputs": (CUTOUT,), "threshold": 0.5}),
    "cup-on-white": ("coffee.png", CUP, {"outputs": (COMPOSITE,)}),
    "cup-on-gravel": ("coffee.png", CUP, {"outputs": (COMPOSITE,), "background": "s3://art/gravel.png"}),
    "head-cropped": ("astronaut.png", HEAD, {"outputs": (CUTOUT,), "crop": True}),
    "head-cropped-margin": ("astronaut.png", HEAD, {"outputs": (CUTOUT,), "crop": True, "crop_margin": "25%"}),
    "head-on-blue": ("astronaut.png", HEAD, {"outputs": (COMPOSITE,), "background": "#2060ff"}),
    "head-on-blue-refined": (
        "astronaut.png",
        HEAD,
        {"outputs": (COMPOSITE,), "background": "#2060ff", "refine": True, "crop": True, "crop_margin": "10px"},
    ),
    "head-webp": ("astronaut.png", HEAD, {"outputs": (CUTOUT,), "format": "webp", "quality": 60, "crop": True}),
    "head-avif": ("astronaut.png", HEAD, {"outputs": (CUTOUT,), "format": "avif", "quality": 60, "crop": True}),
    "head-jpeg": ("astronaut.png", HEAD, {"outputs": (COMPOSITE,), "format": "jpeg", "quality": 60, "crop": True}),
}


def rendered(name: str, mask, options: dict) -> Image.Image:
    settings = OutputOptions(**{"max_side": SIDE} | options)
    picture = decode((FOLDER / name).read_bytes(), LimitSettings(), decode_target(settings, InputSize(*mask.shape)))
    background = Picture(photograph("gravel.png")) if settings.background_picture else None
    [(_, data)] = render(picture, mask, settings, background)[1]
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_reviewed_ones(case):
    image, golden = rendered(*CASES[case]), Image.open(GOLDEN / f"{case}.png")

    assert (image.mode, image.size) == (golden.mode, golden.size)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(golden))
    lossy = CASES[case][2].get("format", "png") != "png"
    assert difference.mean() < (1.0 if lossy else 0.1)
    assert np.percentile(difference, 99.5) <= (12 if lossy else 1)


def outputs_of(picture, mask, **options):
    quality, outputs = render(picture, mask, OutputOptions(**options))
    return quality, {kind: Image.open(io.BytesIO(data)) for kind, data in outputs}


def test_all_kinds_show_the_same_part_at_the_same_size():
    quality, outputs = outputs_of(
        Picture(photograph("astronaut.png")), HEAD, outputs=tuple(OutputKind), crop=True, max_side=99
    )

    assert list(outputs) == list(OutputKind)
    assert len({image.size for image in outputs.values()}) == 1
    assert np.array_equal(np.asarray(outputs[CUTOUT])[..., 3], np.asarray(outputs[MASK]))
    assert not quality.needs_review


def test_outputs_are_made_one_at_a_time(monkeypatch):
    made = []
    monkeypatch.setattr("worker.images.render.encode", lambda image, form, **_: made.append(image.mode) or b"")

    outputs = render(Picture(photograph("coffee.png")), CUP, OutputOptions(outputs=tuple(OutputKind)))[1]

    assert made == []
    next(outputs)
    assert made == ["L"]


def wide_gamut() -> bytes:
    """Return a profile with other primaries: sRGB with red and blue exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * data[131], 12)}
    red, blue = entries[b"rXYZ"] + 4, entries[b"bXYZ"] + 4
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    return bytes(data)


def test_the_profile_is_kept_and_the_background_converted_to_it():
    """#rrggbb is an sRGB colour and must keep its appearance under the profile of the picture."""
    profile = wide_gamut()
    picture = Picture(photograph("coffee.png"), icc_profile=profile)

    _, outputs = outputs_of(picture, CUP, outputs=(COMPOSITE, CUTOUT), background="#c02010")

    assert all(image.info["icc_profile"] == profile for image in outputs.values())
    assert np.abs(np.array(outputs[COMPOSITE].getpixel((590, 5))) - (0x10, 0x20, 0xC0)).max() <= 3


def test_a_background_with_a_profile_is_converted():
    background = Picture(Image.new("RGB", (50, 50), (0x10, 0x20, 0xC0)), icc_profile=wide_gamut())
    options = OutputOptions(outputs=(COMPOSITE,), background="s3://art/b.png")

    [(_, data)] = render(Picture(photograph("coffee.png")), CUP, options, background)[1]

    assert np.abs(np.array(Image.open(io.BytesIO(data)).getpixel((590, 5))) - (0xC0, 0x20, 0x10)).max() <= 3


def test_an_unusable_profile_leaves_the_background_unchanged():
    picture = Picture(photograph("coffee.png"), icc_profile=b"x" * 200)

    image = outputs_of(picture, CUP, outputs=(COMPOSITE,), format="webp", quality=100, background="#c02010")[1]

    assert image[COMPOSITE].getpixel((590, 5)) == (0xC0, 0x20, 0x10)


def test_a_background_picture_is_scaled_to_cover():
    background = Image.new("RGB", (100, 400), (0, 0, 255))
    background.paste((255, 0, 0), (0, 0, 100, 100))
    background.paste((255, 0, 0), (0, 300, 100, 400))
    options = OutputOptions(outputs=(COMPOSITE,), background="s3://art/b.png")
    nothing = np.zeros((8, 8), np.uint8)

    [(_, data)] = render(Picture(photograph("coffee.png")), nothing, options, Picture(background))[1]

    assert Image.open(io.BytesIO(data)).getcolors() == [(600 * 400, (0, 0, 255))]


@pytest.mark.parametrize("mask", [np.zeros((4, 4), np.float32), np.zeros((1, 4, 4), np.uint8)])
def test_an_array_that_is_not_a_mask_is_refused(mask):
    with pytest.raises(ValueError, match="one plane"):
        render(Picture(Image.new("RGB", (4, 4))), mask, OutputOptions())


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case, arguments in CASES.items():
        rendered(*arguments).save(GOLDEN / f"{case}.png", optimize=True, icc_profile=None)
