"""Fuzz with a time budget: `FUZZ_SECONDS` for each target, by default 0.5 (`make fuzz SECONDS=600`).

Hypothesis generates the inputs with a new seed for each round. It shrinks an input that fails and prints how to
reproduce it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

_ROUND = 100


def fuzz(strategy: SearchStrategy[Any], check: Callable[[Any], object]) -> int:
    """Call `check` with inputs until the budget is spent; return the number of inputs."""
    tried = 0
    deadline = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "0.5"))

    def one(value: Any) -> None:
        nonlocal tried
        tried += 1
        check(value)

    options = settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    while tried == 0 or time.monotonic() < deadline:
        seed(secrets.randbits(64))(options(given(strategy)(one)))()
    # A fault would have raised, and a process that ends would have ended this one.
    name = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" ")[0]
    print(f"{name}: {tried} inputs, 0 processes ended, 0 faults")  # noqa: T201 -- shown with `-s`
    return tried
