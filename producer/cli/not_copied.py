"""Name the outputs of a job that could not be copied to a folder, the first ones as they come, and count them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.contract import console

SHOWN = 100
"""Outputs that are named; a full list is that of `producer results`."""


@dataclass
class NotCopied:
    """What could not be copied so far."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """The first ones, each with the reason."""

    def add(self, key: str, problem: str) -> None:
        """Note one more, and print it to standard error if it is among the first."""
        self.count += 1
        if len(self.named) < SHOWN:
            self.named.append(f"{key}: {problem}")
            console.err.print(f"not copied: {self.named[-1]}", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Print how many were not named."""
        if self.count > len(self.named):
            console.err.print(f"and {self.count - len(self.named):,} more were not copied")
