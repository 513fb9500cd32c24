"""Run `build_variant` in a separate process and return its result."""

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

_LAST_LINE = 300
"""Most characters of a dead process's last line of output that are quoted."""

OnProgress = Callable[[str, int, int], None]
"""Called with (activity, done, total); `total` is 0 when not known."""


def build_in_process(
    task: Mapping[str, Any], label: str, on_progress: OnProgress, module: str | None = None
) -> dict[str, Any]:
    """Build one variant in a child process.

    Args:
        task: fields of `build_variant.BuildTask`.
        label: the variant in words, for errors.
        on_progress: called with the progress that the process reports.
        module: another module with the same protocol.

    Returns:
        Fields of `build_variant.BuildResult`.

    Raises:
        MaskmillError: the error that the process reported, or `BundleError` if it died.
    """
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            # -P: a folder named `worker` in the working directory must not be imported
            bound_to_parent([sys.executable, "-P", "-m", module or MODULE], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # Ctrl-C reaches only the caller, which then ends this process in order
        )
        with process:
            try:
                return _result(process, task, label, on_progress, stderr)
            finally:
                process.kill()


def _result(
    process: subprocess.Popen[str], task: Mapping[str, Any], label: str, on_progress: OnProgress, stderr: IO[str]
) -> dict[str, Any]:
    """Send the task and read the process's messages until its result or error."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    try:
        with process.stdin as stdin:
            json.dump(task, stdin)
    except BrokenPipeError as error:
        process.wait()
        raise _died(process.returncode, label, stderr) from error
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        if "progress" in message:
            on_progress(*message["progress"])
        elif "result" in message:
            result: dict[str, Any] = message["result"]
            return result
        elif "error" in message:
            raise _reported(*message["error"], label=label)
    raise _died(process.wait(), label, stderr)


def _reported(name: str, text: str, *, label: str) -> MaskmillError:
    """Rebuild an error from its class name and text; a class that is not in `errors` becomes `BundleError`."""
    kind: type[MaskmillError] = getattr(errors, name, BundleError)
    return kind(f"{label}: {text}")


def _died(code: int, label: str, stderr: IO[str]) -> BundleError:
    """Describe a process that ended without a result or an error."""
    if code == -signal.SIGKILL:
        return BundleError(
            f"{label}: the system killed the build process, most likely for lack of memory; convert one smaller size "
            "at a time"
        )
    stderr.seek(0)
    last = ([line.strip() for line in stderr if line.strip()] or ["no error message"])[-1][:_LAST_LINE]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return BundleError(f"{label}: the build process died ({how}): {last}")
