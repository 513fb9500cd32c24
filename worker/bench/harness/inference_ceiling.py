"""The inference ceiling: the rate of the network alone on all core sets at once; no image is fetched or written.

All core sets run at the same time, because a single one would profit from the memory bandwidth and the clock that its
neighbours leave unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from worker.bench.harness.measure import TurnTiming
from worker.bench.harness.picture import picture
from worker.bench.harness.process import Child
from worker.bench.harness.requests import NetworkRequest, files_of
from worker.contract.input_size import InputSize
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant


def request(variant: Variant, arithmetic: str, cores: CoreSet, image: Path) -> NetworkRequest:
    """Return the request that makes a child run a variant with the worker's engine on a core set."""
    return {
        "job": "openvino",
        "kernels": "auto",
        "cpus": cores.cpus,
        "streams": cores.streams,
        "threads": cores.threads,
        "arithmetic": arithmetic,
        "image": str(image),
        "variant": files_of(variant),
    }


def image_file(folder: Path, size: InputSize) -> Path:
    """Return the file with the picture of all measurements at one size, written on first use."""
    path = folder / f"image_{size.short}.npy"
    if not path.exists():
        np.save(path, picture(size))
    return path


class InferenceCeiling:
    """One loaded network per core set. Use as a context manager."""

    def __init__(self, variant: Variant, arithmetic: str, core_sets: Sequence[CoreSet], folder: Path) -> None:
        """Load the network on all core sets in parallel.

        Args:
            variant: the network.
            arithmetic: of its float part.
            core_sets: to run on.
            folder: for the picture and the logs of the child processes.

        Raises:
            SetupError: a child process cannot load it.
        """
        self.core_sets = tuple(core_sets)
        image = image_file(folder, variant.size)
        self._children: list[Child] = []
        self._threads = ThreadPoolExecutor(len(self.core_sets))

        def load(cores: CoreSet) -> None:
            log = folder / f"ceiling-{cores.index}.log"
            self._children.append(Child(request(variant, arithmetic, cores, image), log))

        try:
            list(self._threads.map(load, self.core_sets))
        except BaseException:
            self.close()
            raise
        self.facts: dict[str, Any] = self._children[0].first["facts"]

    def turn(self, images: int) -> TurnTiming:
        """Run this number of images on every core set, all at once; return the timing of all images together.

        Raises:
            SetupError: a child process ended.
        """
        answers = list(self._threads.map(lambda child: child.run(images), self._children))
        wall = max(answer["wall_seconds"] for answer in answers)
        return TurnTiming(images * len(answers), wall, sum(answer["cpu_seconds"] for answer in answers))

    def close(self) -> None:
        """End the child processes."""
        self._threads.shutdown()
        for child in self._children:
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
