"""Output options of the command line become `OutputOptions`; contradictions and options without effect are refused."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from producer.cli.output_options import OutputRequest, output_options
from support.fakes import FakeStore
from worker.contract.errors import MaskmillError, SettingsError, SourceError
from worker.contract.outputs import ExifPolicy, ImageFormat, OutputKind, OutputOptions
from worker.contract.s3url import S3Url

MASK, CUTOUT, COMPOSITE = OutputKind.MASK, OutputKind.CUTOUT, OutputKind.COMPOSITE


def read(*arguments: str) -> OutputRequest:
    """Return what a command called with these arguments receives."""
    received: list[OutputRequest] = []

    @click.command()
    @output_options
    def command(*, outputs: OutputRequest) -> int:
        received.append(outputs)
        return 0

    done = CliRunner().invoke(command, arguments)
    if isinstance(done.exception, MaskmillError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return received[0]


def test_a_background_with_a_name_that_is_too_long_is_refused():
    with pytest.raises(SourceError, match="File name too long"):
        read("--output", "composite", "--background", "9" * 400)


def test_the_default_output_is_a_mask():
    assert read() == OutputRequest(OutputOptions())


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (["--output", "cutout"], (CUTOUT,)),
        (["--output", "mask,cutout"], (MASK, CUTOUT)),
        (["--output", "composite, mask"], (COMPOSITE, MASK)),
        (["--output", "mask", "--output", "composite"], (MASK, COMPOSITE)),
        (["--output", "both"], (MASK, CUTOUT)),
        (["--output", "both,composite", "--output", "Mask"], (MASK, CUTOUT, COMPOSITE)),
    ],
)
def test_kinds_may_be_repeated_or_listed(arguments, kinds):
    assert read(*arguments).options.outputs == kinds


def test_every_option_reaches_the_command():
    line = (
        "--output mask,composite --format jpg --mask-format webp --quality 71 --background #AABBCC --crop "
        "--crop-margin 5% --threshold 0.4 --refine --max-side 1600 --exif keep-with-gps --name x/{stem}-{kind}.{ext}"
    )

    options = read(*line.split()).options

    assert options == OutputOptions(
        outputs=(MASK, COMPOSITE),
        format=ImageFormat.JPEG,
        mask_format=ImageFormat.WEBP,
        quality=71,
        background="#aabbcc",
        crop=True,
        crop_margin="5%",
        threshold=0.4,
        refine=True,
        max_side=1600,
        exif=ExifPolicy.KEEP_WITH_GPS,
        name="x/{stem}-{kind}.{ext}",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--output cutout --format jpeg", "JPEG has no transparency"),
        ("--quality 80", "--quality has no effect without --format webp, avif or jpeg"),
        ("--background #000000", "--background has no effect without --output composite"),
        ("--refine", "--refine has no effect without --output cutout or composite"),
        ("--exif keep", "--exif has no effect without --output cutout or composite"),
        ("--crop-margin 5%", "--crop-margin has no effect without --crop"),
        ("--output cutout --mask-format png", "--mask-format has no effect without --output mask"),
        ("--crop --crop-margin 5", "--crop-margin: write a margin as 20px or 5%"),
        ("--output composite --background #ff", "--background: a background is a colour"),
        ("--output composite --background nowhere.jpg", "nowhere.jpg: no such file"),
        ("--output composite --background s3://bucket", "--background: a background is a colour"),
        ("--name {stem}", None),
        ("--name {file}", "no such field 'file'"),
        ("--output mask,cutout --name {stem}.{ext}", "add {kind}"),
    ],
)
def test_invalid_combinations_are_refused(line, message):
    if message is None:
        assert read(*line.split()).options.name == "{stem}"
        return
    with pytest.raises(SettingsError) as caught:
        read(*line.split())
    assert message in str(caught.value)


def test_an_unknown_kind_is_refused():
    done = CliRunner().invoke(click.command()(output_options(lambda outputs: 0)), ["--output", "mask,sticker"])

    assert done.exit_code == 2
    assert "'sticker' is not one of mask, cutout, composite, both" in done.output


class Bucket(FakeStore):
    """A fake store with the methods that only the producer calls."""

    def head(self, place):
        return self.get(place, max_bytes=1 << 30)[1]

    def content_etag(self, place):
        return self.head(place).etag

    def upload(self, path, place):
        self.objects[str(place)] = path.read_bytes()


def test_a_local_background_is_uploaded_once_under_its_content(tmp_path):
    picture = tmp_path / "Studio.JPG"
    picture.write_bytes(b"picture")
    bucket = Bucket()
    request = read("--output", "composite", "--background", str(picture))

    first = request.with_background(bucket, S3Url.folder("s3://out/job"))
    bucket.upload = None
    again = request.with_background(bucket, S3Url.folder("s3://out/job/"))

    [url] = bucket.objects
    assert first == again
    assert first.background == url and url.startswith("s3://out/job/_maskmill/backgrounds/") and url.endswith(".jpg")
    assert first.background_etag == "etag-of-" + url.removeprefix("s3://out/")
    picture.write_bytes(b"another")
    assert request.with_background(Bucket(), S3Url("out", "job/")).digest() != first.digest()


def test_a_background_in_a_bucket_is_pinned_by_its_etag():
    bucket = Bucket({"s3://art/studio.png": b"picture"})

    options = read("--output", "composite", "--background", "s3://art/studio.png").with_background(bucket, S3Url("out"))

    assert (options.background, options.background_etag) == ("s3://art/studio.png", "etag-of-studio.png")


def test_a_missing_background_is_reported_at_submission():
    with pytest.raises(SourceError, match=r"s3://art/studio\.png: no such object"):
        read("--output", "composite", "--background", "s3://art/studio.png").with_background(Bucket(), S3Url("out"))


def test_an_unused_background_is_not_looked_up():
    assert OutputRequest(OutputOptions()).with_background(Bucket(), S3Url("out")) == OutputOptions()
