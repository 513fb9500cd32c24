"""The network that a command uses: what the source `default` stands for, prepared first where a command starts workers.

A network is imported in a child process, because this process must not load OpenVINO: it starts others and pins them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

from worker.contract.errors import BundleError
from worker.contract.settings import Settings
from worker.model.sources import catalogue, prepared
from worker.model.sources.catalogue import DEFAULT_NETWORK, NetworkEntry
from worker.model.sources.prepared import DEFAULT_SOURCE, Resolution
from worker.processes.parent_death import bound_to_parent

DEFAULT_LIMIT_SECONDS = 900.0
"""Longest preparation of the default network, before workers start with the built-in one. With INT8 it takes a minute
or two on two idle cores."""

_LAST_LINE = 500
"""Most characters of the reason for a failure that are shown."""

_MB = 1_000_000

OnStep = Callable[[str], None]


def resolved(config: Settings) -> tuple[Settings, Resolution]:
    """Return the settings without the source `default`, and what it stands for; nothing is fetched."""
    found = prepared.resolve_default(config.model)
    return config.model_copy(update={"model": found.model}), found


def prepare(config: Settings, on_step: OnStep) -> tuple[Settings, Resolution]:
    """Prepare the network of the settings if it is one of the catalogue, so that workers find it without a network.

    If the default network cannot be prepared, the built-in one takes its place.

    Args:
        config: the settings.
        on_step: called with a sentence before something is fetched, which may take minutes.

    Returns:
        As `resolved`. The sentence about a fallback includes the reason.

    Raises:
        BundleError: a network that the settings name cannot be prepared.
    """
    is_default = config.model.source == DEFAULT_SOURCE
    entry = catalogue.find(DEFAULT_NETWORK if is_default else config.model.source)
    size_asked = config.model.model_copy(update={"size": None}) if is_default else config.model
    if entry is None or prepared.find(entry, size_asked) is not None:
        return resolved(config)
    on_step(_announcement(entry))
    failure = _run_fetch(entry, DEFAULT_LIMIT_SECONDS if is_default else None)
    if failure and not is_default:
        raise BundleError(f"{entry.name} could not be prepared: {failure}")
    found_config, found = resolved(config)
    if failure:
        found = Resolution(found.model, f"{found.why}; reason: {failure}", found.is_fallback)
    return found_config, found


def _announcement(entry: NetworkEntry) -> str:
    size = f"{entry.bytes / _MB:.1f} MB, " if entry.bytes else ""
    return (
        f"fetching and importing {entry.name}, once ({size}licence {entry.licence.id or 'not stated'}, commercial use: "
        f"{entry.licence.commercial})"
    )


def _run_fetch(entry: NetworkEntry, limit_seconds: float | None) -> str:
    """Run `worker model fetch` with the settings of this process; return why it failed, or an empty text."""
    command = [sys.executable, "-P", "-m", "worker.cli", "model", "fetch", entry.name]
    process = subprocess.Popen(
        bound_to_parent(command, signal.SIGTERM),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends the child
    )
    with process:
        try:
            _, said = process.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            return f"not finished after {limit_seconds:g} s"
        finally:
            process.kill()
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no error message"]
    return "" if process.returncode == 0 else lines[-1][:_LAST_LINE]
