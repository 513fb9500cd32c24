"""Services on this machine: where their one folder is, and how every command of this user finds them while they run.

`maskmill cut` and `maskmill serve` start them and write `running.json` into the folder. Settings that name no Redis and
no S3 are then taken from it (`settings.load`). The record counts only while the process that wrote it lives.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

BUCKET = "maskmill"
"""The bucket that the services on this machine always have."""

_NAME = "running.json"
_ENDED = ("Z", "X")
"""States of a process that has ended and was not reaped yet, proc(5)."""
_START_TIME = 19
"""Index of `starttime` among the fields of /proc/PID/stat that follow the name of the program, proc(5)."""


class RunningServices(BaseModel):
    """The record of running services. It contains credentials, so its file has mode 600."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    pid: int
    """The process that started the services and stops them."""
    started: int
    """Start time of that process in clock ticks since boot; tells it from a later process with the same id."""
    command: str
    """Name of the command that started them, for messages."""
    workers: bool
    """Whether workers run with them."""
    model: dict[str, str]
    """Variables that choose the network of the workers; empty if it was left to the settings."""
    settings: dict[str, dict[str, str]]
    """Settings that reach the services: group -> name -> value."""


def cache_home() -> Path:
    """Return the folder of the user's caches: XDG_CACHE_HOME if it is an absolute path, else ~/.cache."""
    named = Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
    return named if named.is_absolute() else Path("~/.cache").expanduser()


def folder() -> Path:
    """Return the folder of the services of this user. It does not depend on the current folder."""
    return cache_home() / "maskmill" / "local"


def find_running(state: Path) -> RunningServices | None:
    """Return the services that run in a state folder; None if there are none."""
    try:
        found = RunningServices.model_validate_json((state / _NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if process_start(found.pid) == found.started else None


def write_running(state: Path, record: RunningServices) -> None:
    """Write the record, by atomic rename, with mode 600."""
    part = state / f"{_NAME}.new"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(record.model_dump_json())
    part.replace(state / _NAME)


def remove_running(state: Path) -> None:
    """Remove the record, if it is there."""
    (state / _NAME).unlink(missing_ok=True)


def process_start(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if it has ended or never existed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _ENDED else int(fields[_START_TIME])
