"""The numbers of a run of `maskmill cut`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Totals:
    """The numbers of a run so far."""

    planned: int = 0
    done: int = 0
    ok: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    """Key, code and message of each picture that failed."""
    cancelled: bool = False
    """A job was cancelled by another command."""
