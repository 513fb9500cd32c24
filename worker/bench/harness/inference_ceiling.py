"""The bare limit: the network alone on all core sets at once, fed with one picture; nothing fetched, nothing written.

A lone core set would profit from its neighbours' memory bandwidth and clock, so all of them run at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from worker.bench.harness.measure import Sample
from worker.bench.harness.process import Child
from worker.bench.prepare import picture
from worker.contract.input_size import InputSize
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant


def request(variant: Variant, arithmetic: str, cores: CoreSet, image: Path) -> dict[str, Any]:
    """What a child needs to run a variant with our engine on a core set."""
    return {
        "job": "openvino",
        "kernels": "auto",
        "cpus": cores.cpus,
        "streams": cores.streams,
        "threads": cores.threads,
        "arithmetic": arithmetic,
        "image": str(image),
        "variant": {
            "name": variant.name,
            "size": str(variant.size),
            "precision": variant.precision,
            "xml": str(variant.xml),
            "bin": str(variant.bin),
            "digest": variant.digest,
        },
    }


def image_file(folder: Path, size: InputSize) -> Path:
    """The picture of all measurements at one size, as a child reads it."""
    path = folder / f"image_{size}.npy"
    if not path.exists():
        np.save(path, picture(size))
    return path


class Limit:
    """One loaded network for each core set. Use as a context manager."""

    def __init__(self, variant: Variant, arithmetic: str, core_sets: Sequence[CoreSet], folder: Path) -> None:
        """Load everything, all core sets side by side.

        Raises:
            SetupError: a child could not.
        """
        self.core_sets = tuple(core_sets)
        image = image_file(folder, variant.size)
        self._children: list[Child] = []
        self._threads = ThreadPoolExecutor(len(self.core_sets))

        def load(cores: CoreSet) -> None:
            wanted = request(variant, arithmetic, cores, image)
            self._children.append(Child(wanted, folder / f"limit-{cores.index}.log"))

        try:
            list(self._threads.map(load, self.core_sets))
        except BaseException:
            self.close()
            raise
        self.facts: dict[str, Any] = self._children[0].first["facts"]

    def turn(self, images: int) -> Sample:
        """So many images on every core set, all at once; the sample counts all of them.

        Raises:
            SetupError: a child ended.
        """
        answers = list(self._threads.map(lambda child: child.ask({"images": images}), self._children))
        wall = max(float(answer["wall_seconds"]) for answer in answers)
        return Sample(images * len(answers), wall, sum(float(answer["cpu_seconds"]) for answer in answers))

    def close(self) -> None:
        """End the children."""
        self._threads.shutdown()
        for child in self._children:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
