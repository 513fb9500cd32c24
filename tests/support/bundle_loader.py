"""Load the networks that standard input names, one after the other: `python -m support.bundle_loader`.

For each line, the path of a graph whose weights lie beside it, one line is written: `loaded`, or the code of the error
with which it was refused. Any other exception ends the process with a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

from worker.contract.errors import InferenceFailed, SetupError
from worker.contract.input_size import InputSize
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine


def load(xml: Path, side: int) -> str:
    """Compile a network and run it once."""
    variant = Variant("fuzzed", InputSize(side, side), "fp32", xml, xml.with_suffix(".bin"), "0" * 64)
    try:
        with Engine.load(variant, streams=1, threads=1, inference_precision="f32") as engine:
            engine.warm_up()
    except (SetupError, InferenceFailed) as error:
        return error.code
    return "loaded"


if __name__ == "__main__":
    for line in sys.stdin:
        print(load(Path(line.strip()), int(sys.argv[1])), flush=True)  # noqa: T201 -- the answer
