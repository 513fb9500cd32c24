"""From SOURCE as typed to one `KeySource`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from producer.sources import list_formats
from producer.sources.bucket import S3Glob, S3Object, S3Prefix
from producer.sources.filters import Filters
from producer.sources.globs import is_glob
from producer.sources.inventory import S3Inventory
from producer.sources.item import has_image_suffix
from producer.sources.key_list import KeyList, StandardInput
from producer.sources.key_source import KeySource
from producer.sources.line_reader import STDIN
from producer.sources.list_formats import ListFormat
from producer.sources.local import LocalFiles, LocalFolder, LocalGlob, existing_folder, exists, suggestion
from producer.sources.units import texts
from worker.contract.errors import SettingsError, SourceError
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


@dataclass(frozen=True)
class SourceSpec:
    """What to submit, as the user specifies it."""

    places: tuple[str, ...]
    """One s3:// prefix, object or glob; or local folders, files and globs; or `-`."""

    manifest: str | None = None
    """A list of keys relative to the place: path, s3:// URL or `-`."""

    manifest_format: ListFormat | None = None
    filters: Filters = field(default_factory=Filters)
    head: bool = False
    """Ask S3 for the size and age that a list does not give."""

    follow_links: bool = False
    """Also take what links in a local folder lead to outside it."""

    if TYPE_CHECKING:  # `__post_init__` accepts more than the types of the fields

        def __init__(
            self,
            places: str | Path | Iterable[str | Path],
            manifest: str | Path | None = ...,
            manifest_format: ListFormat | str | None = ...,
            filters: Filters = ...,
            head: bool = ...,
            *,
            follow_links: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Read the values as given: one place counts as several of one, a path as its text.

        Raises:
            SettingsError: a value has the wrong type; the message names the field.
        """
        object.__setattr__(self, "places", texts("the source", self.places))
        if self.manifest is not None:
            object.__setattr__(self, "manifest", str(self.manifest))
        if self.manifest_format is not None:
            object.__setattr__(self, "manifest_format", _format(self.manifest_format))
        if not isinstance(self.filters, Filters):
            raise SettingsError(f"filters takes Filters(...), not {self.filters!r:.80}")

    def __str__(self) -> str:
        """Return the source as text for messages."""
        return " ".join(self.places) + (f" in {self.manifest}" if self.manifest else "")


def _format(given: str) -> ListFormat:
    try:
        return ListFormat(given)
    except ValueError as error:
        known = ", ".join(form.value for form in ListFormat)
        raise SettingsError(f"manifest_format {given!r:.80} is not one of {known}") from error


def resolve_source(spec: SourceSpec, store: ObjectStore) -> KeySource:
    """Return the source that was typed. Nothing is listed yet; of standard input the first entry is read.

    Raises:
        SourceError: the specification names nothing that can be a source.
    """
    if not spec.places:
        raise SourceError("no source: give an s3:// prefix, a glob, a folder, files, or - for standard input")
    first = spec.places[0]
    if len(spec.places) > 1 and any(place == STDIN or place.startswith("s3://") for place in spec.places):
        raise SourceError(
            "several sources can only be local files and folders: write s3:// URLs to a list for --manifest"
        )
    if first == STDIN:
        if spec.manifest:
            raise SourceError("SOURCE - is itself a list: give the prefix of its keys as SOURCE, with --manifest -")
        return StandardInput(store, spec.manifest_format, follow_links=spec.follow_links)
    if spec.manifest:
        return _listed_in(spec.manifest, spec, store)
    return _in_bucket(first, store) if first.startswith("s3://") else _on_disk(spec)


def _in_bucket(text: str, store: ObjectStore) -> KeySource:
    url = S3Url.parse(text)
    if is_glob(text):
        return S3Glob(store, url)
    return S3Object(store, url) if has_image_suffix(url.key) else S3Prefix(store, url.as_folder())


def _on_disk(spec: SourceSpec) -> KeySource:
    paths, follow_links = [Path(place).expanduser() for place in spec.places], spec.follow_links
    if len(paths) == 1 and is_glob(spec.places[0]) and not exists(paths[0]):
        return LocalGlob(str(paths[0]), follow_links=follow_links)
    for path in paths:
        if not exists(path):
            raise SourceError(f"{path} is neither an s3:// URL nor a folder or file{suggestion(path)}")
    if len(paths) == 1 and paths[0].is_dir():
        return LocalFolder(paths[0], follow_links)
    return LocalFiles(paths, follow_links=follow_links)


def _listed_in(manifest: str, spec: SourceSpec, store: ObjectStore) -> KeySource:
    place = spec.places[0]
    root = _prefix(place) if place.startswith("s3://") else existing_folder(place)
    form = spec.manifest_format or list_formats.format_from_name(manifest)
    if form is not ListFormat.INVENTORY:
        return KeyList(store, root, manifest, form, spec.follow_links)
    if isinstance(root, Path):
        raise SourceError(f"{manifest} is an S3 Inventory: give s3://BUCKET/ as SOURCE, not a folder")
    return S3Inventory(store, root, manifest)


def _prefix(text: str) -> S3Url:
    if is_glob(text):
        raise SourceError(f"{text}: with --manifest, SOURCE is the prefix that keys are relative to, not a glob")
    return S3Url.folder(text)
