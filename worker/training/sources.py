"""The packages of pictures for training, and those for evaluation only: name, version, licence and digest.

They are fetched with the tools of their distributors (`apt-get download`, `npm pack`), or placed in the download folder
by hand. In both cases a file is used only if its SHA-256 is the one listed here.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import SetupError, SourceError
from worker.model.format.manifest import sha256_of


@dataclass(frozen=True)
class PicturePackage:
    """One package that contains pictures."""

    name: str
    file: str
    """File name that the distributor's tool gives it."""
    sha256: str
    license: str
    contents: str
    fetch_command: tuple[str, ...]
    """Command that leaves `file` in the working directory."""
    evaluation_only: bool = False
    """Its pictures are neither used for training nor shipped."""


def _debian(
    name: str, version: str, sha256: str, license: str, contents: str, *, evaluation_only: bool = False
) -> PicturePackage:
    file = f"{name}_{version.replace(':', '%3a')}_all.deb"
    command = ("apt-get", "download", f"{name}={version}")
    return PicturePackage(name, file, sha256, license, contents, command, evaluation_only)


CLIP_ART = _debian(
    "openclipart-png",
    "1:0.18+dfsg-19",
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "public domain",
    "8,121 pieces of clip art with alpha",
)
EMOJI = _debian(
    "fonts-noto-color-emoji",
    "2.042-0+deb12u1",
    "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
    "OFL-1.1",
    "colour glyphs",
)
ENVIRONMENTS = PicturePackage(
    "@pmndrs/assets",
    "pmndrs-assets-1.7.0.tgz",
    "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc",
    "CC0-1.0",
    "18 panoramic photographs of Poly Haven, 512 x 256",
    ("npm", "pack", "@pmndrs/assets@1.7.0"),
)
STAMPS = _debian(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    "GPL-2.0-only",
    "photographs of objects with alpha",
    evaluation_only=True,
)
WALLPAPERS = _debian(
    "mate-backgrounds",
    "1.26.0-1",
    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    "GPL-2.0-or-later",
    "photographs of landscapes and surfaces",
    evaluation_only=True,
)
FURNITURE = _debian(
    "sweethome3d-furniture",
    "1.8-1",
    "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    "CC-BY-3.0, CC-BY-3.0-US and CC0-1.0, by library",
    "820 three-dimensional models with textures",
    evaluation_only=True,
)
PLASMA_WALLPAPERS = _debian(
    "plasma-workspace-wallpapers",
    "4:5.27.5-2",
    "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
    "GPL-2.0-or-later",
    "photographs of landscapes and surfaces, and drawings",
    evaluation_only=True,
)
PACKAGES = (CLIP_ART, EMOJI, ENVIRONMENTS, STAMPS, WALLPAPERS, FURNITURE, PLASMA_WALLPAPERS)
"""All packages. The photographs inside scikit-image's wheel are used as well (`worker.standalone.photographs`,
`library.SURFACES`)."""


def fetch(package: PicturePackage, folder: Path) -> Path:
    """Return the folder of an unpacked package; fetch, verify and unpack the package first if the folder is missing.

    Args:
        package: which package.
        folder: of downloads, where the package is also unpacked.

    Raises:
        SetupError: the distributor's tool is missing or fails.
        SourceError: the file has another digest than the one listed here.
    """
    unpacked = folder / package.name.strip("@").replace("/", "-")
    if unpacked.is_dir():
        return unpacked
    archive = folder / package.file
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(package, folder)
    digest = sha256_of(archive)
    if digest != package.sha256:
        raise SourceError(
            f"{archive} has sha256 {digest}, not {package.sha256}; replace it with the {package.file} of that digest"
        )
    _unpack(package, archive, unpacked)
    return unpacked


def _unpack(package: PicturePackage, archive: Path, unpacked: Path) -> None:
    """Unpack beside the final folder and rename, so that `unpacked` is complete if it exists."""
    part = unpacked.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    if archive.suffix == ".deb":
        _call(package, ("dpkg-deb", "--extract", str(archive), str(part)), archive.parent)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(part, filter="data")
    part.rename(unpacked)


def _download(package: PicturePackage, folder: Path) -> None:
    _call(package, package.fetch_command, folder)
    if not (folder / package.file).exists():
        raise SetupError(
            f"{' '.join(package.fetch_command)} did not produce {package.file}; put it into {folder} by hand "
            "(Debian 12, npm)"
        )


def _call(package: PicturePackage, command: tuple[str, ...], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SetupError(f"{package.name} needs {command[0]}; or put {package.file} into {folder} by hand") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        raise SetupError(
            f"{' '.join(command)} failed: {lines[-1] if lines else 'no error message'}; "
            f"or put {package.file} into {folder} by hand"
        ) from error
