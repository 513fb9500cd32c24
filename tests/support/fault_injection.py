"""Faults inside the processes that a test starts.

A test describes them in `Faults` and passes `Faults.environment()` to a process. `injected/sitecustomize.py` reads the
description there and patches the modules concerned.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_INJECTED = Path(__file__).parent / "injected"

SMALL_NETWORK = {"PYTHONPATH": str(_INJECTED), "SMALL_NETWORK": "1"}
"""Variables of processes that build a network of two convolutions in place of BiRefNet."""


@dataclass(frozen=True)
class Faults:
    """The faults in the processes of one test."""

    folder: Path
    """Holds the tokens and the list of executions of this test."""

    image_seconds: float = 0.0
    """Slept for every image: work that lasts but does not load the machine."""

    load_seconds: float = 0.0
    """Slept while a model is loaded, once for each armed token `slow-load`."""

    gap_seconds: float = 0.0
    """Slept between Redis handing out a message and kombu recording that it holds it."""

    back_off_seconds: float = 0.2
    """Longest pause of the supervisor before it restarts a process."""

    store_pauses: float = 1.0
    """Factor of the pauses before work for which S3 failed is tried again: 5 to 120 s with a factor of 1."""

    off: Sequence[str] = ()
    """Disabled safeguards: reconciler, change (search for lost chunks when the primary has changed), watch (cut the
    connections to the previous primary), demoted (take a refusal of a replica for a lost connection), recheck (look for
    outputs before they are made again), skip (the same after a start that ended without a release), renewal, watchdog,
    careful (run images one by one), verdict, once (count an image only when its state changes), returned (publish
    chunks that were given back)."""

    schema: int = 0
    """Not a fault: the process belongs to a later release, which writes this schema and still reads older ones."""

    celery: Mapping[str, object] = field(default_factory=dict)
    """Celery settings that differ from the product's. A value that is a mapping is merged into the product's."""

    def environment(self) -> dict[str, str]:
        """Return the variables that carry the faults into a process and its descendants."""
        self._tokens.mkdir(parents=True, exist_ok=True)
        description = asdict(self) | {"folder": None, "tokens": str(self._tokens), "executions": str(self._executions)}
        return {"PYTHONPATH": str(_INJECTED), "FAULTS": json.dumps(description)}

    def arm(self, token: str, times: int = 1) -> None:
        """Let a fault happen `times` times from now on.

        `lose`: a worker dies while it holds a message that exists nowhere else. `half-batch`: the leader dies after it
        has published half of the chunks it took. `slow-load`: loading a model takes `load_seconds` longer.
        """
        self._tokens.mkdir(parents=True, exist_ok=True)
        for _ in range(times):
            (self._tokens / f"{token}-{time.monotonic_ns()}").touch()

    def armed(self, token: str) -> int:
        """Return how many times this fault is still to happen."""
        return len(list(self._tokens.glob(f"{token}-*")))

    def executions(self) -> Counter[str]:
        """Return key -> how often work on that image began, in any process and with any outcome."""
        lines = self._executions.read_text().splitlines() if self._executions.exists() else []
        return Counter(line.partition("\t")[0] for line in lines)

    def clear_executions(self) -> None:
        """Empty the list of executions."""
        self._executions.unlink(missing_ok=True)

    @property
    def _tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def _executions(self) -> Path:
        return self.folder / "executions"
