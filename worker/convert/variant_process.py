"""Runs `build_variant` in a process of its own, and hears what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Any

from worker.contract import errors
from worker.contract.errors import BundleError, MaskmillError
from worker.processes.parent_death import bound_to_parent

MODULE = "worker.convert.build_variant"

_LAST_WORDS = 300
"""Characters of a dead process's last line that are passed on."""

Say = Callable[[str, int, int], None]


def build_in_process(task: Mapping[str, Any], label: str, say: Say) -> dict[str, Any]:
    """Build one variant.

    Args:
        task: Fields of `build_variant.Task`.
        label: The variant in words, for errors.
        say: Passed the progress.

    Returns:
        Fields of `build_variant.Result`.

    Raises:
        MaskmillError: what the process raised, or `BundleError` if it died.
    """
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            # -P: a folder named `worker` in the working directory is not ours
            bound_to_parent([sys.executable, "-P", "-m", MODULE], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal reaches the caller alone, which ends this in order
        )
        with process:
            try:
                return _listen(process, task, label, say, words)
            finally:
                process.kill()


def _listen(
    process: subprocess.Popen[str], task: Mapping[str, Any], label: str, say: Say, words: IO[str]
) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both were asked for")
    try:
        with process.stdin as stdin:
            json.dump(task, stdin)
    except BrokenPipeError as error:
        process.wait()
        raise _died(process.returncode, label, words) from error
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        if "progress" in message:
            say(*message["progress"])
        elif "result" in message:
            result: dict[str, Any] = message["result"]
            return result
        elif "error" in message:
            raise _raised(*message["error"], label=label)
    raise _died(process.wait(), label, words)


def _raised(name: str, text: str, *, label: str) -> MaskmillError:
    kind: type[MaskmillError] = getattr(errors, name, BundleError)
    return kind(f"{label}: {text}")


def _died(code: int, label: str, words: IO[str]) -> BundleError:
    """A process that said neither result nor error."""
    if code == -signal.SIGKILL:
        return BundleError(
            f"{label}: killed by the system, most likely for want of memory; convert a smaller size alone"
        )
    words.seek(0)
    last = ([line.strip() for line in words if line.strip()] or ["no reason given"])[-1][:_LAST_WORDS]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return BundleError(f"{label}: the process that built it died ({how}): {last}")
