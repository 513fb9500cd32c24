"""The library: which pictures become subjects, how the split is made, and which packages are used."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from worker.contract.errors import SetupError, SourceError
from worker.training import eval_sets, library, sources
from worker.training.library import PackedPictures


def drawn(draw, side: int = 200) -> Image.Image:
    image = Image.new("RGBA", (side, side))
    draw(ImageDraw.Draw(image))
    return image


def test_a_subject_is_cropped_to_its_box_and_scaled_down():
    disc = drawn(lambda d: d.ellipse((100, 150, 699, 549), fill=(200, 30, 30, 255)), side=800)

    found = library.extract_subject(disc)

    assert found.shape == (171, 256, 4)
    assert found[85, 128, 3] == 255


@pytest.mark.parametrize(
    ("what", "draw"),
    [
        ("nothing", lambda d: None),
        ("an outline", lambda d: d.ellipse((10, 10, 190, 190), outline=(0, 0, 0, 255), width=6)),
        ("a filled square", lambda d: d.rectangle((10, 10, 190, 190), fill=(9, 9, 9, 255))),
        (
            "scattered dots",
            lambda d: [
                d.ellipse((x, y, x + 30, y + 30), fill=(9, 9, 9, 255)) for x in (10, 90, 160) for y in (10, 90, 160)
            ],
        ),
        ("something tiny", lambda d: d.ellipse((10, 10, 40, 40), fill=(9, 9, 9, 255))),
    ],
)
def test_pictures_without_a_usable_subject_are_rejected(what, draw):
    assert library.extract_subject(drawn(draw)) is None, what


def test_the_split_is_by_name_and_holds_out_a_twentieth():
    names = [f"animals/{number}.png" for number in range(4000)]

    held_out = [name for name in names if library.is_held_out(name)]

    assert 0.03 < len(held_out) / len(names) < 0.07
    assert held_out == [name for name in names if library.is_held_out(name)]


def test_packed_pictures_return_each_picture_with_its_shape():
    pictures = [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.full((5, 1, 4), 7, np.uint8)]
    packed = PackedPictures(np.concatenate([p.reshape(-1) for p in pictures]), np.array([p.shape for p in pictures]))

    assert len(packed) == 2
    assert all(np.array_equal(packed[index], picture) for index, picture in enumerate(pictures))


def test_a_view_of_a_panorama_with_a_vertical_gradient_keeps_its_direction():
    panorama = np.repeat(np.linspace(1, 0, 64, dtype=np.float32)[:, None, None], 128, axis=1).repeat(3, axis=2)

    seen = library.perspective_view(panorama, np.random.default_rng(1))

    assert seen.shape == (library.SIDE, library.SIDE, 3)
    assert seen[0].mean() > seen[128].mean() > seen[-1].mean()


def test_photographs_are_distinguished_from_drawings():
    rng = np.random.default_rng(1)
    photo = np.dstack([rng.integers(0, 256, (64, 64, 3)), np.full((64, 64), 255)]).astype(np.uint8)
    drawing = photo.copy()
    drawing[:20, :, :3] = (250, 200, 10)

    assert eval_sets.is_photograph(photo)
    assert not eval_sets.is_photograph(drawing)


def test_a_file_with_another_digest_is_refused(tmp_path):
    (tmp_path / sources.EMOJI.file).write_bytes(b"something else")

    with pytest.raises(
        SourceError, match=r"fonts-noto-color-emoji.* has sha256 .*replace it with the .* of that digest"
    ):
        sources.fetch(sources.EMOJI, tmp_path)
    assert not (tmp_path / sources.EMOJI.name).exists()


def test_a_missing_tool_is_named_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SetupError, match=r"needs apt-get; or put .* by hand"):
        sources.fetch(sources.CLIP_ART, tmp_path / "downloads")


def test_evaluation_packages_are_not_in_the_library():
    trained = {package.name for package in sources.PACKAGES if not package.evaluation_only}

    assert trained == {"openclipart-png", "fonts-noto-color-emoji", "@pmndrs/assets"}
    assert all("GPL" not in package.license for package in sources.PACKAGES if not package.evaluation_only)
