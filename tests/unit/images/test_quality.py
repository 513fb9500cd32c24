"""Quality figures of masks agree with what a person would say."""

import numpy as np
import pytest
from PIL import Image

from tests.support.photographs import CUP, HEAD, soft_ellipse
from worker.contract.messages import MOSTLY_SOFT, UNDECIDED, MaskQuality
from worker.images.quality import assess


def of(values):
    return assess(Image.fromarray(np.asarray(values, np.uint8)))


def flat(value, size=64):
    return np.full((size, size), value)


def test_half_of_the_picture():
    mask = flat(0)
    mask[:, 32:] = 255
    quality = of(mask)

    assert (quality.coverage, quality.soft) == (0.5, 0.0)
    assert quality.flags == ("border",)
    assert not quality.needs_review


@pytest.mark.parametrize(("value", "flags"), [(0, ("empty",)), (255, ("full", "border")), (100, ("empty", "soft"))])
def test_a_mask_without_a_subject_or_without_a_background_needs_review(value, flags):
    quality = of(flat(value))

    assert quality.flags == flags
    assert quality.needs_review
    assert quality.coverage == pytest.approx(value / 255, abs=1e-4)


def test_the_box_holds_the_subject_as_shares_of_the_sides():
    mask = np.zeros((100, 200))
    mask[20:60, 50:150] = 255
    mask[0, 0] = 127  # less than half opaque

    assert of(mask).box == (0.25, 0.2, 0.75, 0.6)
    assert of(flat(255)).box == (0, 0, 1, 1)
    assert of(flat(100)).box is None


def test_a_speck_is_an_empty_mask():
    mask = flat(0, 256)
    mask[100:107, 100:107] = 255  # 49 of 65,536
    assert of(mask).empty
    mask[100:110, 100:110] = 255
    assert not of(mask).empty


def test_a_clean_subject_needs_no_review():
    quality = assess(Image.fromarray(HEAD))

    assert quality.flags == ()
    assert quality.coverage == pytest.approx(np.pi * 0.16 * 0.2, rel=0.1)
    assert 0 < quality.soft < MOSTLY_SOFT
    assert quality.undecided < UNDECIDED / 3


def test_a_subject_cut_off_by_the_frame_touches_the_border():
    assert assess(Image.fromarray(CUP)).touches_border


@pytest.mark.parametrize("turns", range(4))
def test_each_side_is_a_border(turns):
    mask = flat(0)
    mask[-1, 20] = 200
    assert of(np.rot90(mask, turns)).touches_border
    mask[-1, 20] = 100
    assert not of(np.rot90(mask, turns)).touches_border


def test_a_mask_of_medium_opacity_is_soft():
    ramp = np.tile(np.linspace(0, 255, 64), (64, 1))
    assert of(ramp).soft > 0.8
    assert "soft" in of(ramp).flags


def thin(side=320, pitch=32):
    """Posts of 3 pixels with soft edges of 2 pixels on each side: a tripod, a mast, hair."""
    post = np.array([85, 170, 255, 255, 255, 170, 85])
    mask = flat(0, side)
    for left in range(pitch, side - pitch, pitch):
        mask[:, left : left + post.size] = post
    return mask


def test_a_subject_of_thin_parts_is_decided_although_most_of_it_is_soft():
    quality = of(thin())

    assert quality.soft > 0.5
    assert quality.undecided < UNDECIDED / 3
    assert not quality.needs_review


@pytest.mark.parametrize("side", [320, 512, 1024])
def test_a_haze_over_half_of_a_subject_needs_review_and_one_over_a_corner_does_not(side):
    mask = flat(0, side)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 255
    half, corner = mask.copy(), mask.copy()
    half[side // 2 :, :] = np.minimum(half[side // 2 :, :], 120)
    corner[: side // 3, : side // 3] = np.minimum(corner[: side // 3, : side // 3], 120)

    assert of(half).needs_review and of(half).undecided == pytest.approx(0.32, abs=0.03)
    assert not of(corner).needs_review


def test_a_faint_halo_around_a_subject_counts_for_little():
    mask = flat(0, 320)
    mask[20:300, 20:300] = 20
    mask[100:220, 100:220] = 255

    assert of(mask).soft > 0.8
    assert not of(mask).needs_review


def test_the_outcome_of_an_earlier_version_is_judged_by_its_soft_share():
    plain = {"coverage": 0.3, "empty": False, "full": False, "touches_border": False}

    assert MaskQuality(soft=0.5, **plain).flags == ("soft",)
    assert MaskQuality(soft=0.5, undecided=0.1, **plain).flags == ()
    assert MaskQuality(soft=0.1, undecided=0.5, **plain).flags == ("soft",)


def test_facts_do_not_depend_on_the_size():
    small = assess(Image.fromarray(HEAD))
    large = assess(Image.fromarray(HEAD).resize((1600, 900), Image.Resampling.BILINEAR))

    assert large.coverage == pytest.approx(small.coverage, abs=0.002)
    assert large.soft == pytest.approx(small.soft, abs=0.02)
    assert large.undecided == pytest.approx(small.undecided, abs=0.02)
    assert large.flags == small.flags


def test_one_pixel():
    assert of([[255]]).full
    assert soft_ellipse(8, (0.5, 0.5), (0.1, 0.1)).shape == (8, 8)


@pytest.mark.parametrize("shape", [(320, 320), (512, 512), (300, 517)])
@pytest.mark.parametrize("kind", ["noise", "edge", "haze", "specks", "blocks"])
def test_undecided_is_the_share_of_soft_opacity_without_an_edge_nearby(shape, kind):
    """The plain reading of the definition, cell by cell."""
    dice = np.random.default_rng(3)
    down, across = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    radius = np.hypot(down, across)
    mask = {
        "noise": dice.integers(0, 256, shape),
        "edge": 255 / (1 + np.exp((radius - 0.5) * 60)),
        "haze": 255 / (1 + np.exp((radius - 0.5) * 4)),
        "specks": (dice.random(shape) < 0.01) * 255,
        "blocks": np.kron(dice.integers(0, 256, (10, 11)), np.ones((60, 60)))[: shape[0], : shape[1]],
    }[kind].astype(np.uint8)
    values = np.asarray(Image.fromarray(mask).resize((320, 320), Image.Resampling.BOX)).astype(int)
    cells = values.reshape(64, 5, 64, 5).swapaxes(1, 2).reshape(64, 64, 25)
    opacity, undecided = cells * (cells >= 13), 0
    for row, column in np.ndindex(64, 64):
        near = cells[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        if not (near.max() >= 230 and near.min() <= 26):
            undecided += (opacity * (cells < 242))[row, column].sum()

    assert assess(Image.fromarray(mask)).undecided == round(float(undecided / opacity.sum()), 4)
