"""Networks of the catalogue that were fetched and imported on this machine: they run without a network connection.

`worker model fetch NAME` prepares one (`worker.convert.named`), workers only read it here.

    CACHE/networks/{name}/.lock
    CACHE/networks/{name}/{size}.json                       which bundle was prepared for this input size
    CACHE/networks/{name}/{digest of the file}-{size}/      the bundle
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.errors import BundleNotFound
from worker.contract.input_size import InputSize
from worker.contract.log_fields import event
from worker.contract.settings import ModelSettings
from worker.model.format.layout import MANIFEST_NAME
from worker.model.format.manifest import Sha256
from worker.model.sources import catalogue
from worker.model.sources.bundle_sources import BUILTIN_PREFIX, FolderSource
from worker.model.sources.catalogue import DEFAULT_NETWORK, NetworkEntry

log = logging.getLogger(__name__)

DEFAULT_SOURCE = "default"
"""The model source that stands for `DEFAULT_NETWORK` if it is prepared, else for `FALLBACK`."""

FALLBACK = f"{BUILTIN_PREFIX}starter"

_FOLDER_DIGITS = 16
"""Hex digits of a digest in a folder name, as in `worker.model.sources.s3_cache`."""


class Prepared(BaseModel):
    """The record of a prepared network."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    name: str
    input_size: InputSize
    sha256: Sha256
    """Digest of the published file."""
    source: str
    """Where the file came from."""
    verified_by: str
    bundle: str = Field(pattern=r"^[0-9a-f]{16}-[0-9]+x[0-9]+$")
    """Name of the bundle's folder beside the record."""


def home(cache_dir: Path, name: str) -> Path:
    """Return the folder of a network in the cache."""
    return cache_dir.expanduser() / "networks" / name


def bundle_name(sha256: str, size: InputSize) -> str:
    """Return the name of the folder for the bundle of a published file at one size."""
    return f"{sha256[:_FOLDER_DIGITS]}-{size}"


def write_record(cache_dir: Path, record: Prepared) -> None:
    """Publish a prepared bundle, by atomic rename.

    Raises:
        OSError: the cache cannot be written.
    """
    path = home(cache_dir, record.name) / f"{record.input_size}.json"
    part = path.with_suffix(".part")
    part.write_text(record.model_dump_json(indent=1))
    part.replace(path)


def find(entry: NetworkEntry, model: ModelSettings) -> Path | None:
    """Return the folder of the prepared bundle; None if the network is not prepared at the size in the settings.

    Without a size in the settings, the size of the catalogue is taken, else the largest one that is prepared. A bundle
    of a file with another digest than that of the catalogue does not count.
    """
    records = _records(entry, model.cache_dir)
    if model.size is not None:
        records = [record for record in records if record.input_size == InputSize.parse(str(model.size))]
    records.sort(key=lambda record: (record.input_size == entry.input_size, record.input_size))
    return home(model.cache_dir, entry.name) / records[-1].bundle if records else None


def _records(entry: NetworkEntry, cache_dir: Path) -> list[Prepared]:
    folder = home(cache_dir, entry.name)
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = Prepared.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("ignored, unreadable: %s", error, extra=event("download_record_invalid", file=str(path)))
            continue
        is_current = entry.sha256 in (None, record.sha256)
        if record.name == entry.name and is_current and (folder / record.bundle / MANIFEST_NAME).is_file():
            found.append(record)
    return found


@dataclass(frozen=True)
class NamedSource(FolderSource):
    """A prepared network of the catalogue."""

    remedy: ClassVar[str] = "prepare it again with `worker model fetch NAME --refresh`"

    @classmethod
    def of(cls, entry: NetworkEntry, model: ModelSettings) -> NamedSource:
        """Return the prepared bundle of a network.

        Raises:
            BundleNotFound: it is not prepared; names the command that does it.
        """
        root = find(entry, model)
        if root is None:
            size = f" at {model.size.short}" if model.size is not None else ""
            option = f" --size {model.size.short}" if model.size is not None else ""
            raise BundleNotFound(
                f"{entry.name} is not prepared{size} in {home(model.cache_dir, entry.name)}; run `worker model fetch "
                f"{entry.name}{option}` once on this machine"
            )
        notice = entry.licence.notice
        return cls(entry.name, root, warnings=(f"{entry.name}: {notice}",) if notice else ())


@dataclass(frozen=True)
class Resolution:
    """The settings of the model without `default`, and a sentence that says what it stands for."""

    model: ModelSettings
    why: str
    """Empty if the settings name a source."""
    is_fallback: bool = False


def resolve_default(model: ModelSettings) -> Resolution:
    """Replace the source `default` by the network that it stands for on this machine. Other sources are kept."""
    if model.source != DEFAULT_SOURCE:
        return Resolution(model, "")
    entry = catalogue.get(DEFAULT_NETWORK)
    if find(entry, model.model_copy(update={"size": None})):
        return Resolution(
            model.model_copy(update={"source": DEFAULT_NETWORK}), f"{DEFAULT_NETWORK}, the default network"
        )
    why = (
        f"{FALLBACK} is used, because the default network {DEFAULT_NETWORK} is not prepared: run `worker model fetch "
        f"{DEFAULT_NETWORK}` once for much better masks, or set MASKMILL_MODEL__SOURCE={FALLBACK} to keep this one"
    )
    return Resolution(model.model_copy(update={"source": FALLBACK}), why, is_fallback=True)
