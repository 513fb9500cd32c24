"""Prepare a network of the catalogue: fetch its published file, import it, and keep the bundle in the model cache.

    catalogue entry ── published_file.fetch ──> verified file ── importer ──> bundle ── record ──> `prepared.find`

One process prepares a network at a time, the others wait and find the bundle. Workers never call this module: they read
the finished bundle. The file is removed once the bundle is recorded; an interrupted download or import is resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.contract.settings import Settings
from worker.convert import named_import
from worker.convert.named_import import ImportOrder, OnStep
from worker.model.format.layout import MANIFEST_NAME, SIZE_MULTIPLE
from worker.model.sources import prepared, published_file
from worker.model.sources.catalogue import FileSource, NetworkEntry
from worker.model.sources.prepared import Prepared
from worker.model.sources.progress import OnProgress
from worker.model.sources.published_file import FileRequest, OnFailure, OpenObjects, PublishedFile
from worker.processes.filelock import locked

Importer = Callable[[ImportOrder, OnStep], None]
"""Writes the bundle of a published file. `named_import.import_file`, or a stand-in of a test."""


@dataclass(frozen=True)
class Preparation:
    """How to prepare a network, beyond its entry."""

    size: InputSize | None = None
    """None for the size of the catalogue."""
    sha256: str | None = None
    """Digest of the file, for an entry without one."""
    sources: tuple[FileSource, ...] = ()
    """Instead of those of the entry."""
    refresh: bool = False
    """Prepare the network even if it is already prepared."""
    open_objects: OpenObjects | None = None
    """Opens the S3 port, for a source in S3."""


@dataclass(frozen=True)
class Watch:
    """Callbacks that report how far a preparation is."""

    on_progress: OnProgress | None = None
    """While the file downloads."""
    on_step: OnStep = lambda what: None
    """At each step, in words."""
    on_failure: OnFailure = lambda why: None
    """When a source fails and the next one is tried."""


def fetch_named(
    entry: NetworkEntry,
    settings: Settings,
    watch: Watch,
    how: Preparation | None = None,
    *,
    importer: Importer | None = None,
) -> Path:
    """Return the folder of the prepared bundle, preparing the network if necessary.

    Raises:
        BundleNotFound: no source delivered the file; names each with its reason.
        DigestMismatch: the digest given by the user contradicts the catalogue.
        SettingsError: the network does not accept this size.
        SetupError: a package that importing needs is not installed.
        BundleError: the file cannot be imported, or the cache cannot be written.
    """
    how = how or Preparation()
    size = _checked_size(entry, how.size)
    return _Job(entry, settings, watch, how, size, importer).run()


@dataclass(frozen=True)
class _Job:
    entry: NetworkEntry
    settings: Settings
    watch: Watch
    how: Preparation
    size: InputSize
    importer: Importer | None
    """None for the importers of this package."""

    def run(self) -> Path:
        """Return the bundle, prepared under the lock of the network."""
        model = self.settings.model.model_copy(update={"size": self.size})
        home = prepared.home(model.cache_dir, self.entry.name)
        try:
            home.mkdir(parents=True, exist_ok=True)
            with locked(home / ".lock"):
                found = prepared.find(self.entry, model)
                return found if found and not self.how.refresh else self._prepare(home)
        except OSError as error:
            raise BundleError(
                f"cannot write {error.filename or home}: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR to a writable "
                "folder with enough space"
            ) from error

    def _prepare(self, home: Path) -> Path:
        entry, how, watch = self.entry, self.how, self.watch
        if self.importer is None:
            named_import.check_installed(entry)
        cache_dir = self.settings.model.cache_dir.expanduser()
        watch.on_step(f"fetching {entry.file}")
        request = FileRequest(entry, home, cache_dir, how.sha256, how.sources, how.open_objects)
        file = published_file.fetch(request, watch.on_progress, watch.on_failure)
        bundle = home / prepared.bundle_name(file.sha256, self.size)
        watch.on_step(f"importing {file.path.name} at {self.size}; verified by {file.verified_by}")
        order = ImportOrder(entry, file.path, bundle, self.size, file.sha256, str(file.source), self.settings)
        (self.importer or named_import.import_file)(order, watch.on_step)
        if not (bundle / MANIFEST_NAME).is_file():
            raise BundleError(f"the import of {entry.name} wrote no {MANIFEST_NAME} to {bundle}; report this")
        prepared.write_record(cache_dir, _record(entry, file, self.size, bundle.name))
        _remove_others(home, self.size, bundle)
        if file.is_ours:
            file.path.unlink(missing_ok=True)
        return bundle


def _record(entry: NetworkEntry, file: PublishedFile, size: InputSize, bundle: str) -> Prepared:
    return Prepared(
        name=entry.name,
        input_size=size,
        sha256=file.sha256,
        source=str(file.source),
        verified_by=file.verified_by,
        bundle=bundle,
    )


def _remove_others(home: Path, size: InputSize, bundle: Path) -> None:
    """Remove bundles of earlier editions of the file at this size."""
    for folder in home.glob(f"*-{size}"):
        if folder != bundle:
            shutil.rmtree(folder, ignore_errors=True)


def _checked_size(entry: NetworkEntry, size: InputSize | None) -> InputSize:
    """The size to prepare.

    Raises:
        SettingsError: the network does not accept it.
    """
    if size is None or size == entry.input_size:
        return entry.input_size
    if not entry.any_size:
        raise SettingsError(f"{entry.name} runs at {entry.input_size} only; leave out the size")
    if size.height % SIZE_MULTIPLE or size.width % SIZE_MULTIPLE:
        raise SettingsError(f"size {size}: height and width must be multiples of {SIZE_MULTIPLE}")
    return size
