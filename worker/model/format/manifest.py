"""What a bundle says about itself, and checking its files against that.

A manifest is optional (the published set of BiRefNet-lite has none). Where there is one, no model file is opened by
OpenVINO before its SHA-256 is the one the manifest gives: the graph is XML, and untrusted until then.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.errors import BundleError, DigestMismatch

MAX_MANIFEST_BYTES = 1 << 20
"""A manifest describes a few dozen files; anything larger is not one."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileFacts(_Json):
    """One file as the manifest describes it."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Source(_Json):
    """What a bundle was made from; networks that need no training have no checkpoint."""

    sha256: Sha256 | None = None
    """Of the checkpoint."""


class Manifest(_Json):
    """`manifest.json`. Unknown keys are ignored, so that it can grow."""

    schema_version: Literal[1]
    name: str
    description: str = ""
    license: str = ""
    files: dict[str, FileFacts]
    """Path relative to the bundle's root -> facts. Paths are looked up, never joined to a folder."""

    source: Source | None = None


def read_manifest(path: Path) -> Manifest:
    """Read and validate `manifest.json`.

    Raises:
        BundleError: cannot be read, is too large or not of this schema; the text names the field.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} has more than {MAX_MANIFEST_BYTES} bytes: it is not the manifest of a bundle")
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Validate the text of a `manifest.json`; `place` names it in messages.

    Raises:
        BundleError: not of this schema; the text names the field.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "the JSON itself" for e in error.errors()[:5])
        raise BundleError(
            f"{place} is not a manifest of schema_version 1, wrong: {fields}; package the bundle again, or remove the "
            "manifest to go without checking"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        BundleError: cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; check that it is there and readable") from error


def verified_sha256(manifest: Manifest | None, name: str, path: Path, *, remedy: str) -> str:
    """SHA-256 of a file, which is the one the manifest gives for `name` if there is a manifest.

    Args:
        manifest: of the bundle, or None to compute without comparing.
        name: of the file relative to the bundle's root.
        path: of the bytes to look at.
        remedy: what to do about a mismatch, for the message.

    Raises:
        DigestMismatch: the file is not, or not as, described.
        BundleError: cannot be read.
    """
    got = sha256_of(path)
    if manifest is None:
        return got
    expected = described(manifest, name).sha256
    if got != expected:
        raise DigestMismatch(f"{path}: SHA-256 expected {expected}, got {got}; {remedy}")
    return got


def described(manifest: Manifest, name: str) -> FileFacts:
    """What the manifest says about a file.

    Raises:
        DigestMismatch: nothing, so it cannot be trusted.
    """
    facts = manifest.files.get(name)
    if facts is None:
        raise DigestMismatch(
            f"{name} is in the bundle but not in its manifest.json; remove the file, or package the bundle again"
        )
    return facts


def variant_digest(xml_sha256: str, bin_sha256: str) -> str:
    r"""Digest of a variant, stamped on every output made with it.

    It is the SHA-256 of the ASCII text `XML\nBIN\n`, where XML and BIN are the SHA-256 of the two files in lower-case
    hex. File names take no part: a renamed copy makes the same masks.
    """
    return hashlib.sha256(f"{xml_sha256}\n{bin_sha256}\n".encode("ascii")).hexdigest()
