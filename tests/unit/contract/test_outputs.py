"""Output options: validation, naming of outputs, and the digest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.contract.outputs import ExifPolicy, ImageFormat, OutputKind, OutputOptions

MASK, CUTOUT, COMPOSITE = OutputKind.MASK, OutputKind.CUTOUT, OutputKind.COMPOSITE


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"outputs": ("cutout",), "format": "jpeg"}, "JPEG has no transparency"),
        ({"outputs": ()}, "at least 1 item"),
        ({"outputs": ("sticker",)}, "'mask', 'cutout' or 'composite'"),
        ({"format": "gif"}, "'png', 'webp', 'avif' or 'jpeg'"),
        ({"quality": 0}, "greater than or equal to 1"),
        ({"quality": 101}, "less than or equal to 100"),
        ({"background": "white"}, "#f2f2f2"),
        ({"background": "#fff"}, "#f2f2f2"),
        ({"background": "s3://bucket"}, "s3://bucket/studio.jpg"),
        ({"background": "s3://bucket/folder/"}, "s3://bucket/studio.jpg"),
        ({"crop_margin": "5"}, "20px or 5%"),
        ({"crop_margin": "-5px"}, "20px or 5%"),
        ({"threshold": 0.0}, "greater than 0"),
        ({"threshold": 1.0}, "less than 1"),
        ({"max_side": 0}, "greater than or equal to 1"),
        ({"max_side": 70_000}, "less than or equal to 65535"),
        ({"exif": "gps"}, "'strip', 'keep' or 'keep-with-gps'"),
    ],
)
def test_invalid_options_are_refused(wrong, says):
    with pytest.raises(ValidationError, match=says):
        OutputOptions(**wrong)


def test_a_mask_may_be_jpeg_beside_a_cutout_in_another_format():
    options = OutputOptions(outputs=(MASK, CUTOUT), format="webp", mask_format="jpeg")

    assert (options.format_of(MASK), options.format_of(CUTOUT)) == (ImageFormat.JPEG, ImageFormat.WEBP)
    assert options.output_key("d/a.png", MASK) == "mask/d/a.jpg"
    assert options.output_key("d/a.png", CUTOUT) == "cutout/d/a.webp"


def test_a_kind_requested_twice_is_written_once():
    assert OutputOptions(outputs=(CUTOUT, MASK, CUTOUT)).outputs == (CUTOUT, MASK)


def test_options_are_frozen():
    with pytest.raises(ValidationError):
        OutputOptions().crop = True


@pytest.mark.parametrize(
    ("template", "key", "expected"),
    [
        ("{dir}/{stem}.{ext}", "a/b/c.d.jpg", "a/b/c.d.png"),
        ("{dir}/{name}.{ext}", "a/c.jpg", "a/c.jpg.png"),
        ("{dir}/{stem}-{kind}.{ext}", "c.jpg", "c-mask.png"),
        ("flat/{stem}.{ext}", "a/b/c.jpg", "flat/c.png"),
        ("{dir}/{dir}/{stem}.{ext}", "c.jpg", "c.png"),
        ("{dir}/{{{stem}}}.{ext}", "a/c.jpg", "a/{c}.png"),
        ("{dir}/{stem}.{ext}", "a/{kind}.jpg", "a/{kind}.png"),
        ("{dir}/{stem}.{ext}", "{x}/b.jpg", "{x}/b.png"),
    ],
)
def test_a_template_names_the_outputs(template, key, expected):
    assert OutputOptions(name=template).output_key(key, MASK) == expected


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{dir}/{stem", "expected '}'"),
        ("{dir}/{file}.{ext}", "no such field 'file'"),
        ("{dir}/{}.{ext}", "no such field ''"),
        ("{stem.__class__}.{ext}", "no such field"),
        ("{stem:>9}.{ext}", "take no format"),
        ("{stem!r}.{ext}", "take no format"),
        ("{dir}/{ext}", "would share one key"),
        ("/{stem}.{ext}", "relative to the destination"),
        ("{dir}//{stem}.{ext}", "relative to the destination"),
        ("../{stem}.{ext}", "relative to the destination"),
        ("_maskmill/{stem}.{ext}", "_maskmill/ is reserved"),
        ("{stem}/", "relative to the destination"),
    ],
)
def test_a_template_that_cannot_name_outputs_is_refused(template, says):
    with pytest.raises(ValidationError, match=says):
        OutputOptions(name=template)


def test_several_kinds_need_distinct_names():
    with pytest.raises(ValidationError, match=r"mask and cutout would share one key; add \{kind\}"):
        OutputOptions(outputs=(MASK, CUTOUT), name="{dir}/{stem}.{ext}")

    distinct = OutputOptions(
        outputs=(MASK, COMPOSITE), name="{dir}/{stem}.{ext}", format=ImageFormat.JPEG, mask_format=ImageFormat.PNG
    )
    assert distinct.output_key("a.tif", COMPOSITE) == "a.jpg"


@pytest.mark.parametrize("field", sorted(set(OutputOptions.model_fields) - {"name"}))
def test_every_option_that_decides_pixels_is_in_the_digest(field):
    base = OutputOptions(outputs=(MASK, COMPOSITE), format=ImageFormat.WEBP)
    other = {
        "outputs": (COMPOSITE,),
        "format": ImageFormat.AVIF,
        "mask_format": ImageFormat.PNG,
        "quality": 50,
        "background": "#000000",
        "background_etag": "abc",
        "exif": ExifPolicy.KEEP,
        "crop": True,
        "crop_margin": "3%",
        "threshold": 0.5,
        "refine": True,
        "max_side": 800,
    }

    assert OutputOptions(**base.model_dump() | {field: other[field]}).digest() != base.digest()


def test_names_and_irrelevant_options_keep_outputs_up_to_date():
    same = OutputOptions(name="{stem}.{ext}", quality=50, background="#000000")

    assert same.digest() == OutputOptions().digest()
    assert OutputOptions(outputs=(CUTOUT, MASK)).digest() == OutputOptions(outputs=(MASK, CUTOUT)).digest()


NAMES = st.text(alphabet="amsk-./", min_size=1, max_size=6).filter(lambda key: not key.endswith("/"))
TEMPLATES = [
    "{kind}/{stem}.{ext}",
    "{stem}-{kind}.{ext}",
    "{stem}{kind}.{ext}",
    "{dir}/{kind}{stem}",
    "{stem}/{kind}.{ext}",
]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True), st.sampled_from(TEMPLATES))
def test_collision_keys_find_every_collision(keys, template):
    options = OutputOptions(outputs=(MASK, CUTOUT), name=template)
    everything = [{options.output_key(key, kind) for kind in options.outputs} for key in keys]

    assert bool(everything[0] & everything[1]) == bool(
        set(options.collision_keys(keys[0])) & set(options.collision_keys(keys[1]))
    )


def test_all_kinds_are_compared_if_they_can_share_a_key():
    options = OutputOptions(outputs=(MASK, CUTOUT), name="{kind}{stem}.{ext}")

    assert len(options.collision_keys("a.jpg")) == 2
    assert OutputOptions(outputs=(MASK, CUTOUT)).collision_keys("d/a.jpg") == ("mask/d/a.png",)
