"""Outputs in the bucket have the kinds, formats, names and metadata requested on the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from support import commands
from support.installation import Installation
from support.photographs import photograph
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "shelf").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (50.0, 51.0, 52.0)}
    photograph("coffee.png").save(folder / "shelf" / "cup.jpg", quality=92, exif=exif.tobytes())
    return folder


def outputs_of(installation: Installation, folder: Path, target: Path, *arguments: str) -> dict[str, Image.Image]:
    """Submit, wait and download; return relative path -> image."""
    dest = f"s3://{installation.bucket}/{target.name}/"
    done = commands.run(
        "producer",
        *("submit", str(folder), dest, *arguments, "--wait", "--json", "--timeout", "60"),
        settings=installation.environment,
    )
    assert done.code == 0, done.err
    fetched = commands.run(
        "producer", "download", done.lines[0]["job"], str(target / "out"), settings=installation.environment
    )
    assert fetched.code == 0, fetched.err
    files = (path for path in (target / "out").rglob("*") if path.is_file())
    return {path.relative_to(target / "out").as_posix(): Image.open(io.BytesIO(path.read_bytes())) for path in files}


def test_several_kinds_with_different_formats_and_names(running_installation, folder, tmp_path):
    found = outputs_of(
        *(running_installation, folder, tmp_path),
        *("--output", "mask,cutout", "--output", "composite", "--format", "webp", "--mask-format", "png"),
        *("--name", "flat/{dir}/{stem}-{kind}.{ext}", "--crop", "--crop-margin", "3%", "--max-side", "200", "--refine"),
    )

    assert {name: (image.format, image.mode) for name, image in found.items()} == {
        "flat/shelf/cup-mask.png": ("PNG", "L"),
        "flat/shelf/cup-cutout.webp": ("WEBP", "RGBA"),
        "flat/shelf/cup-composite.webp": ("WEBP", "RGB"),
    }
    assert len({image.size for image in found.values()}) == 1
    assert max(found["flat/shelf/cup-mask.png"].size) == 200


def test_a_local_background_is_used_and_exif_is_kept_without_the_location(running_installation, folder, tmp_path):
    Image.new("RGB", (40, 30), (0, 90, 180)).save(tmp_path / "studio.png")

    found = outputs_of(
        *(running_installation, folder, tmp_path),
        *("--output", "composite", "--background", str(tmp_path / "studio.png"), "--format", "jpg", "--exif", "keep"),
    )

    [(name, image)] = found.items()
    exif = image.getexif()
    assert (name, image.format, image.size) == ("shelf/cup.jpg", "JPEG", (400, 600))
    assert (exif[ExifTags.Base.Make], exif.get_ifd(ExifTags.IFD.GPSInfo)) == ("Maker", {})
    blue = sum(count for count, (r, g, b) in image.resize((40, 60)).getcolors(2400) if b > 150 and r < 40)
    assert blue > 200  # of 2400 pixels: the table behind the cup
    with ObjectStore(running_installation.settings.s3) as store:
        backgrounds = list(
            store.list(S3Url.folder(f"s3://{running_installation.bucket}/{tmp_path.name}/_maskmill/backgrounds"))
        )
    assert [item.key.rpartition(".")[2] for item in backgrounds] == ["png"]


def test_an_undecodable_background_fails_each_image(running_installation, folder, tmp_path):
    (tmp_path / "studio.png").write_text("no picture")

    done = commands.run(
        "producer",
        *("submit", str(folder), f"s3://{running_installation.bucket}/{tmp_path.name}/", "--output", "composite"),
        *("--background", str(tmp_path / "studio.png"), "--wait", "--json", "--timeout", "60"),
        settings=running_installation.environment,
    )

    assert done.code == 3
    assert "background" in done.out + done.err
