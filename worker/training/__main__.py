"""`python -m worker.training`: the steps from pictures to the bundle and evaluation sets of `starter`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worker.contract.errors import MaskmillError

IMAGES = 120_000
"""Composites in a full training run."""


def main(arguments: list[str] | None = None) -> int:
    """Run one step, or all of them in order.

    Returns:
        0, or 1 after printing the error.
    """
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("step", choices=[*_STEPS, "all"])
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="folder for downloads, library, checkpoint, bundle and evaluation sets",
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="composites to train on (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the series of composites (%(default)s)")
    parser.add_argument("--loaders", type=int, default=1, help="processes that generate composites (%(default)s)")
    parser.add_argument("--bundle", type=Path, help="folder of the bundle (default: FOLDER/bundle)")
    options = parser.parse_args(arguments)
    try:
        for step in _STEPS if options.step == "all" else (options.step,):
            _STEPS[step](options)
    except MaskmillError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _data(options: argparse.Namespace) -> None:
    from worker.training import library

    for name, count in library.build(options.folder / "downloads", options.folder / "library").items():
        _print(f"{name}: {count}")


def _train(options: argparse.Namespace) -> None:
    from worker.training import curve, train

    output = options.folder / "training"
    config = train.TrainingConfig(options.images, options.seed, options.loaders)
    _print(str(train.train(options.folder / "library", output, config, _print)))
    _print(str(curve.draw(output / train.CURVE, output / "curve.png")))


def _export(options: argparse.Namespace) -> None:
    from worker.training import export, train

    library = options.folder / "library"
    weights = options.folder / "training" / train.WEIGHTS
    source = {"generator": "worker.training", "images": options.images, "seed": options.seed}
    shipped = options.bundle or options.folder / "bundle"
    _print(str(export.write(weights, library, shipped, source=source)))
    with_fp32 = options.folder / "bundle_fp32"
    _print(str(export.write(weights, library, with_fp32, precisions=("fp32", *export.SHIPPED), source=source)))


def _eval_sets(options: argparse.Namespace) -> None:
    from worker.training import eval_sets

    counts = eval_sets.write(options.folder / "downloads", options.folder / "library", options.folder / "eval_sets")
    for name, count in counts.items():
        _print(f"{name}: {count} pictures")


_STEPS = {"data": _data, "train": _train, "export": _export, "eval-sets": _eval_sets}

if __name__ == "__main__":
    sys.exit(main())
