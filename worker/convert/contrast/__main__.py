"""`python -m worker.convert.contrast DIR`: write the bundle of the built-in model into DIR."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worker.contract.errors import BundleError
from worker.convert.contrast.graph import write


def main(arguments: list[str] | None = None) -> int:
    """Write the bundle.

    Returns:
        0, or 1 after printing why the bundle cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m worker.convert.contrast", description="Write the built-in model.")
    parser.add_argument("dir", type=Path, help="folder of the bundle; an existing bundle is replaced")
    folder = parser.parse_args(arguments).dir
    try:
        sys.stdout.write(f"{write(folder)}\n")
    except BundleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
