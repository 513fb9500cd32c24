"""`worker kernels`: build the native kernels, and show which of them this CPU runs."""

from __future__ import annotations

import click

from worker.contract import console
from worker.contract.console import Exit


@click.group("kernels")
def kernels_command() -> None:
    """Build and show the native kernels.

    They are a faster deformable convolution, layer norm and window attention for BiRefNet. Without them, workers use
    OpenVINO's own operations.
    """


@kernels_command.command("build")
@click.option("--strict", is_flag=True, help="Fail on compiler warnings.")
@click.option("--if-possible", is_flag=True, help="If a build tool is missing, print which one and exit with 0.")
@click.option("--force", is_flag=True, help="Build even if the kernels are up to date.")
def build_command(*, strict: bool, if_possible: bool, force: bool) -> int:
    """Compile the kernels into the installed package. Needs g++ and takes about a minute."""
    from worker.kernels import build

    if build.up_to_date() and not force:
        console.out.print("the kernels are up to date")
        return Exit.OK
    missing = build.tools()
    if isinstance(missing, str) and if_possible:
        console.err.print(f"native kernels not built, workers use OpenVINO's own: {missing}", markup=False)
        return Exit.OK
    console.out.print(f"built: {build.build(strict=strict)}", markup=False, soft_wrap=True)
    return Exit.OK


@kernels_command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_command(*, as_json: bool) -> int:
    """Show which kernels this CPU runs: deformable convolution in each arithmetic, and those of INT8 encoders.

    Exits with 1 if none is built.
    """
    from worker.kernels.library import Missing
    from worker.model.inference.native import deformable, operations

    found = operations.installed()
    if isinstance(found, Missing):
        if as_json:
            console.print_json({"kernels": None, "reason": found.reason})
        else:
            console.out.print(f"{found.reason}; run `worker kernels build`", markup=False)
        return Exit.SETUP
    names: dict[str, str | None] = {arithmetic: found.kernel(arithmetic) for arithmetic in deformable.ARITHMETIC}
    encoder = {"layer_norm": found.layer_norm(), "window_attention": found.attention("f32")}
    if as_json:
        console.print_json({"kernels": names, "encoder": encoder})
        return Exit.OK
    for name, kernel in {**names, **encoder}.items():
        console.out.print(f"{name:<16} {kernel or 'none on this CPU'}", markup=False)
    return Exit.OK
