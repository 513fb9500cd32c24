"""`worker model fetch`: fetch one variant of a bundle to this machine."""

from __future__ import annotations

from typing import Any

import click

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
from worker.model.loading import recommendation
from worker.model.sources import bundles


@click.command("fetch")
@SOURCE
@NAME
@SIZE
@PRECISION
@JSON
def fetch_command(*, source: str | None, as_json: bool, **choice: Any) -> int:
    """Fetch one variant of SOURCE to this machine, verify it and print its paths.

    By default, this is the variant that a worker on this machine runs. An interrupted download resumes.
    """
    config = settings.load()
    model = model_settings(config, source, **choice)
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
    print_warnings(bundle.warnings)
    return Exit.OK
