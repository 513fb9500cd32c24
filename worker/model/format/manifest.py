"""The bundle manifest, `manifest.json`, and the check of files against it.

The manifest is optional; the published BiRefNet-lite set has none. If a bundle has one, OpenVINO opens a model file
only after its SHA-256 has matched the manifest: the graph is XML, and untrusted until then.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.errors import BundleError, DigestMismatch
from worker.model.format.agreement_limits import LIMITS

SCHEMA_VERSION: Final = 1

MAX_MANIFEST_BYTES = 1 << 20
"""Upper limit for a manifest, which describes a few dozen files."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileFacts(_Json):
    """Digest and size of one file of a bundle."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Origin(_Json):
    """What a bundle was made from."""

    sha256: Sha256 | None = None
    """Digest of the checkpoint; None for a network that needs no training."""


class PeakMemory(_Json):
    """Measured peak resident memory of a network."""

    process_mib: int = Field(gt=0)
    """One process without its streams."""
    stream_mib: int = Field(gt=0)
    """Each stream."""


class AgreementFacts(_Json):
    """Agreement of a variant's masks with those of FP32, as measured when it was made."""

    mae: float
    iou: float


class VariantFacts(_Json):
    """What was measured of a variant when it was made."""

    precision: str = ""
    agreement: AgreementFacts | None = None
    """None if it was not compared."""
    kept_by_force: str = ""
    """Which limits it exceeded; empty if none."""

    @property
    def failure(self) -> str:
        """Why the variant is not to be used without being asked for; empty if nothing speaks against it."""
        limit = LIMITS.get(self.precision)
        if self.kept_by_force or self.agreement is None or limit is None:
            return self.kept_by_force
        return limit.excess(self.agreement.mae, self.agreement.iou)


class BundleManifest(_Json):
    """`manifest.json`. Unknown keys are ignored, so that later versions can add some."""

    schema_version: Literal[1]
    name: str
    description: str = ""
    license: str = ""
    files: dict[str, FileFacts]
    """Path relative to the root of the bundle -> facts. Paths are only looked up, never joined to a folder."""

    source: Origin | None = None
    memory: dict[str, dict[str, PeakMemory]] = {}
    """Path of a graph -> arithmetic of the float part, such as `bf16` -> peak memory, where it was measured."""
    variants: dict[str, VariantFacts] = {}
    """Path of a graph -> what was measured of it."""

    def failed_variants(self) -> dict[str, str]:
        """Return why variants failed their comparison with FP32, by path of the graph."""
        return {xml: facts.failure for xml, facts in self.variants.items() if facts.failure}

    def facts_of(self, name: str) -> FileFacts:
        """Return what the manifest says about a file, by its path relative to the root of the bundle.

        Raises:
            DigestMismatch: the manifest does not list the file, so it cannot be trusted.
        """
        facts = self.files.get(name)
        if facts is None:
            raise DigestMismatch(
                f"{name} is in the bundle but not in its manifest.json; remove the file, or package the bundle again"
            )
        return facts


def read_bundle_manifest(path: Path) -> BundleManifest:
    """Read and validate a `manifest.json`.

    Raises:
        BundleError: the file cannot be read, is too large, or does not follow the schema; the text names the field.
    """
    return parse_bundle_manifest(read_manifest_bytes(path), str(path))


def read_manifest_bytes(path: Path) -> bytes:
    """Return the content of a `manifest.json` without validating it.

    Raises:
        BundleError: the file cannot be read, or is too large.
    """
    try:
        check_manifest_size(path.stat().st_size, str(path))
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; check its permissions") from error


def check_manifest_size(size: int, name: str) -> None:
    """Reject a manifest that is too large; `name` is its path or URL for the message.

    Raises:
        BundleError: `size` exceeds `MAX_MANIFEST_BYTES`.
    """
    if size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{name} has {size} bytes, more than the {MAX_MANIFEST_BYTES} bytes allowed for a bundle manifest; check "
            "that it belongs to a bundle"
        )


def parse_bundle_manifest(text: bytes, name: str) -> BundleManifest:
    """Validate the text of a `manifest.json`; `name` is its path or URL for messages.

    Raises:
        BundleError: the text does not follow the schema; the message names the field.
    """
    try:
        return BundleManifest.model_validate_json(text)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "the JSON itself" for e in error.errors()[:5])
        raise BundleError(
            f"{name} is not a bundle manifest of schema_version {SCHEMA_VERSION}, wrong: {fields}; package the bundle "
            "again, or remove the manifest to load the bundle unchecked"
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hex.

    Raises:
        BundleError: the file cannot be read, or is a pipe or a device, which may never end.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path} is not a regular file; copy the bundle again")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}; check that the file exists and its permissions"
        ) from error


def verified_sha256(manifest: BundleManifest | None, name: str, path: Path, *, remedy: str) -> str:
    """Compute the SHA-256 of a file and compare it with the manifest, if there is one.

    Args:
        manifest: of the bundle; None to compute without comparing.
        name: path of the file relative to the root of the bundle.
        path: of the file to read.
        remedy: what to do about a mismatch, for the message.

    Raises:
        DigestMismatch: the digest differs, or the manifest does not list the file.
        BundleError: the file cannot be read.
    """
    got = sha256_of(path)
    if manifest is None:
        return got
    expected = manifest.facts_of(name).sha256
    if got != expected:
        raise DigestMismatch(f"{path}: SHA-256 expected {expected}, got {got}; {remedy}")
    return got


def variant_digest(xml_sha256: str, bin_sha256: str) -> str:
    r"""Return the digest of a variant, which is stamped on every output made with it.

    It is the SHA-256 of the ASCII text `XML\nBIN\n`, where XML and BIN are the SHA-256 of the two files in lower-case
    hex. File names are not part of it: a renamed copy produces the same masks.
    """
    return hashlib.sha256(f"{xml_sha256}\n{bin_sha256}\n".encode("ascii")).hexdigest()
