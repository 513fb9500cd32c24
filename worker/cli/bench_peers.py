"""`worker bench peers`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, network, print_progress, publish
from worker.contract import settings
from worker.contract.console import Exit, FiniteRange

_IMAGES, _ROUNDS = 32, 3
_QUICK_IMAGES = 8

EPILOG = """\b
Examples:
  MASKMILL_MODEL__SOURCE=u2netp worker bench peers --rembg u2netp=u2netp.onnx --output bench
  MASKMILL_MODEL__SOURCE=/models/isnet worker bench peers --rembg isnet-general-use=isnet.onnx --output bench

\b
maskmill runs the network of the settings; its bundle should come from the same ONNX file. rembg and PyTorch are
installed into environments of their own at the first use; rembg downloads no weights. PyPI's PyTorch takes several GB.
"""


@click.command("peers", epilog=EPILOG)
@click.option(
    "--rembg",
    "rembg_network",
    metavar="SESSION=FILE",
    required=True,
    help="rembg's name of the network, and its ONNX file.",
)
@click.option("--output-name", default="", help="Output of the ONNX file that holds the mask. [the first]")
@click.option("--images", type=click.IntRange(min=8), help=f"Photographs. [{_IMAGES}]")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Turns of each program. [{_ROUNDS}]")
@click.option("--megapixels", type=FiniteRange(min=0.01, max=100), default=2.0, show_default=True, help="Size of each.")
@click.option(
    "--pytorch", is_flag=True, help="Compare with PyTorch too, eager and compiled (needs g++). pip installs it once."
)
@click.option("--quick", is_flag=True, help=f"{_QUICK_IMAGES} photographs, one round.")
@OUTPUT
def peers_command(
    *,
    rembg_network: str,
    output_name: str,
    images: int | None,
    rounds: int | None,
    megapixels: float,
    pytorch: bool,
    quick: bool,
    output: Path,
) -> int:
    """Compare with the programs that people would use instead: same pictures, same weights, same cores.

    maskmill runs a job from S3 to S3, `rembg p` and plain scripts (OpenVINO, ONNX Runtime, PyTorch) from folder to
    folder. All write cut-outs of the same photographs; their alpha channels are compared.
    """
    from worker.bench import report
    from worker.bench.peers import contest
    from worker.bench.quality.rembg import RembgNetwork

    try:
        peer = RembgNetwork.parse(rembg_network)
    except ValueError as error:
        raise click.UsageError(f"--rembg: {error}") from error
    report.check_writable(output)
    config = settings.load()
    config, variant, arithmetic = network(config)
    options = contest.PeersOptions(
        rembg=peer,
        output_name=output_name,
        images=images or (_QUICK_IMAGES if quick else _IMAGES),
        rounds=rounds or (1 if quick else _ROUNDS),
        megapixels=megapixels,
        pytorch=pytorch,
    )
    with tempfile.TemporaryDirectory(prefix="maskmill-peers-") as scratch:
        publish(
            contest.run(options, contest.OurNetwork(config, variant, arithmetic), print_progress, Path(scratch)), output
        )
    return Exit.OK
