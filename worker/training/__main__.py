"""`python -m worker.training`: data, training, bundle and exams of the built-in model `starter`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worker.contract.errors import MaskmillError

IMAGES = 120_000
"""Composites of a whole training."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 with what is missing."""
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("step", choices=["data", "train", "export", "exams", "all"])
    parser.add_argument(
        "--folder", type=Path, required=True, help="of downloads, library, checkpoint, bundle and exams"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="composites to train on (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loaders", type=int, default=1, help="processes that make composites (%(default)s)")
    parser.add_argument("--bundle", type=Path, help="where the bundle goes; FOLDER/bundle unless given")
    asked = parser.parse_args(arguments)
    try:
        for step in ("data", "train", "export", "exams") if asked.step == "all" else (asked.step,):
            _STEPS[step](asked)
    except MaskmillError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _data(asked: argparse.Namespace) -> None:
    from worker.training import library

    for what, count in library.build(asked.folder / "downloads", asked.folder / "library").items():
        _say(f"{what}: {count}")


def _train(asked: argparse.Namespace) -> None:
    from worker.training import curve, train

    options = train.Options(asked.images, asked.seed, asked.loaders)
    output = asked.folder / "training"
    _say(str(train.train(asked.folder / "library", output, options, _say)))
    _say(str(curve.draw(output / train.CURVE, output / "curve.png")))


def _export(asked: argparse.Namespace) -> None:
    from worker.training import export, train

    weights = asked.folder / "training" / train.WEIGHTS
    dest = asked.bundle or asked.folder / "bundle"
    facts = {"generator": "worker.training", "images": asked.images, "seed": asked.seed}
    _say(str(export.write(weights, asked.folder / "library", dest, facts=facts)))
    full = asked.folder / "bundle_fp32"
    _say(str(export.write(weights, asked.folder / "library", full, precisions=("fp32", *export.SHIPPED), facts=facts)))


def _exams(asked: argparse.Namespace) -> None:
    from worker.training import eval_sets

    for what, count in eval_sets.write(
        asked.folder / "downloads", asked.folder / "library", asked.folder / "exams"
    ).items():
        _say(f"{what}: {count} pictures")


_STEPS = {"data": _data, "train": _train, "export": _export, "exams": _exams}

if __name__ == "__main__":
    sys.exit(main())
