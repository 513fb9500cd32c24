"""Shared by the commands that prepare a network of the catalogue, or list and describe the catalogue."""

from __future__ import annotations

import re
from typing import Any

from rich.table import Table

from worker.cli.model_source import progress_bar
from worker.contract import console
from worker.contract.errors import SettingsError
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings, Settings
from worker.contract.storage.s3 import ObjectStore
from worker.convert.named import Preparation, Watch, fetch_named
from worker.model.sources import catalogue, prepared, published_file
from worker.model.sources.catalogue import NetworkEntry

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MB = 1_000_000


def network_preparation(
    config: Settings, model: ModelSettings, *, origins: tuple[str, ...], sha256: str | None, refresh: bool
) -> Preparation:
    """Read the options of `worker model fetch`.

    Raises:
        SettingsError: `sha256` is not a SHA-256.
        BundleNotFound: an origin is none of the kinds that are known.
    """
    digest = sha256.strip().lower() if sha256 else None
    if digest is not None and not _SHA256.fullmatch(digest):
        raise SettingsError(f"--sha256 {sha256}: a SHA-256 has 64 hexadecimal digits")
    return Preparation(
        size=InputSize.parse(str(model.size)) if model.size is not None else None,
        sha256=digest,
        sources=tuple(map(published_file.parse_source, origins)),
        refresh=refresh,
        open_objects=lambda: ObjectStore(config.s3),
    )


def prepare_network(entry: NetworkEntry, config: Settings, how: Preparation) -> None:
    """Fetch and import a network unless it is prepared, and print what happens on standard error.

    The licence is printed before anything is downloaded, unless it permits commercial use.
    """
    if entry.licence.notice:
        console.err.print(f"! {entry.name}: {entry.licence.notice}", markup=False, soft_wrap=True, style="yellow")
    with progress_bar() as on_progress:
        watch = Watch(on_progress, _print_step, lambda why: _print_step(f"source failed: {why}"))
        fetch_named(entry, config, watch, how)


def _print_step(what: str) -> None:
    console.err.print(what, markup=False, soft_wrap=True)


def known_rows(model: ModelSettings) -> list[dict[str, Any]]:
    """Return the catalogue as JSON, with the folder of each network that is prepared on this machine."""
    any_size = model.model_copy(update={"size": None})
    return [(entry_facts(entry.name) or {}) | {"prepared": _folder(entry, any_size)} for entry in catalogue.networks()]


def _folder(entry: NetworkEntry, model: ModelSettings) -> str | None:
    found = prepared.find(entry, model)
    return str(found) if found else None


def print_known(model: ModelSettings) -> None:
    """Print the catalogue as a table, with the licence of each network that does not permit commercial use."""
    table = Table(
        *("name", "family", "size", "MB", "licence", "commercial use", "INT8", "digest", "prepared"),
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    any_size = model.model_copy(update={"size": None})
    for entry in catalogue.networks():
        table.add_row(
            entry.name,
            entry.family,
            entry.input_size.short + (" or other" if entry.any_size else ""),
            f"{entry.bytes / _MB:.1f}" if entry.bytes else "?",
            entry.licence.id or "not stated",
            entry.licence.commercial,
            entry.quantisation.int8.replace("_", " "),
            known_digest(entry),
            "yes" if prepared.find(entry, any_size) else "no",
        )
    console.SafeConsole(width=max(console.out.width, 120), highlight=False).print(table)
    for entry in catalogue.networks():
        if entry.licence.notice:
            console.out.print(f"! {entry.name}: {entry.licence.notice}", markup=False, soft_wrap=True)
    console.out.print("`worker model show NAME` says more; `worker model fetch NAME` prepares one here", soft_wrap=True)


def known_digest(entry: NetworkEntry) -> str:
    """Return what a downloaded file is compared with, in short."""
    if entry.sha256:
        return "SHA-256"
    if entry.md5:
        return "MD5"
    return "of the hub" if any(source.kind == "hf" for source in entry.sources) else "give --sha256"


def entry_facts(source: str) -> dict[str, Any] | None:
    """Return the entry of a network as JSON; None if the source is not a name of the catalogue."""
    entry = catalogue.find(source)
    return None if entry is None else entry.model_dump(mode="json") | {"sources": [str(s) for s in entry.sources]}
