"""`maskmill samples`: photographs for a first run."""

from __future__ import annotations

from pathlib import Path

import click

from worker.contract import console
from worker.contract.console import Exit
from worker.standalone.photographs import SAMPLES, copy_photographs


@click.command("samples", epilog="\b\nExample:\n  maskmill samples ./photos")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def samples_command(*, folder: Path) -> int:
    """Write six free photographs to FOLDER, to try `maskmill cut` with. Existing files are not replaced."""
    written = copy_photographs(folder, SAMPLES)
    console.out.print(f"{len(written)} photographs in {folder}", markup=False, soft_wrap=True)
    return Exit.OK
