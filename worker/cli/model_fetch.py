"""`worker model fetch`: one variant into the cache."""

from __future__ import annotations

from typing import Any

import click

from worker.cli.model_source import JSON, NAME, PRECISION, SIZE, SOURCE, advice, asked, bar, objects, warn
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.model.sources import bundles


@click.command("fetch")
@SOURCE
@NAME
@SIZE
@PRECISION
@JSON
def fetch_command(*, source: str | None, as_json: bool, **choice: Any) -> int:
    """Bring one variant of SOURCE to this disk, verify it and say where it is.

    The variant is the one that a worker would run, unless asked otherwise. A fetch that broke off goes on from there.
    """
    config = settings.load()
    model = asked(config, source, **choice)
    with objects(config, model.source) as port, bar() as report:
        bundle = bundles.locate(model, port, advice().precisions, on_progress=report)
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
    warn(bundle.warnings)
    return Exit.OK
