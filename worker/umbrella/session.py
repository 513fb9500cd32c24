"""Use the services of this machine: those that run, or new ones, which are stopped at the end.

Commands of one user share one folder of services. Two lock files in it keep them from each other's way:

    turn.lock    held while a command decides, starts or stops; the next command then sees a settled state
    users.lock   shared by all commands that use the services; the one that started them waits for the others to end

The kernel releases both when a process dies.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract import local_services, settings
from worker.contract.errors import SettingsError, StandaloneError
from worker.contract.local_services import RunningServices
from worker.contract.settings import ModelSettings, RedisSettings, S3Settings, Settings
from worker.processes.filelock import locked
from worker.standalone.embedded import private_folder
from worker.standalone.stack import Stack, model_variables

READING = "list"
"""The command name of services without workers that only read what is stored; they stop within seconds."""

_TURN_SECONDS = 90.0
"""Longest start or stop of services by another command."""
_POLL_SECONDS = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """Services in use."""

    config: Settings
    """Settings that reach them."""
    model: dict[str, str]
    """Variables that choose the network of the workers."""
    stack: Stack | None
    """The services and workers, if this process started them."""
    running: RunningServices
    """The record of the services."""

    @property
    def worker_log(self) -> Path:
        """Return the log of the workers."""
        return local_services.folder() / "logs" / "worker.log"

    def check(self) -> None:
        """Check that the services still run.

        Raises:
            StandaloneError: they have ended; the message says why, as far as known.
        """
        if self.stack is not None:
            if reason := self.stack.worker_error():
                raise StandaloneError(f"the workers have ended: {reason}; their log: {self.worker_log}")
            self.stack.check()
        elif local_services.find_running(local_services.folder()) != self.running:
            raise StandaloneError(f"`maskmill {self.running.command}`, whose services were used, has ended")


@contextlib.contextmanager
def services(command: str, model: ModelSettings | None, *, named: bool, say: Say) -> Iterator[Session]:
    """Yield running services with workers; start them if none run, and stop them at the end.

    Args:
        command: name of the calling command.
        model: the network for new workers; None: no workers are needed, and none are started.
        named: the user asked for this network, so workers that run another one are no substitute.
        say: prints a line about waiting.

    Raises:
        StandaloneError: the services do not start, or those that run have no workers.
        SettingsError: the workers that run have another network.
    """
    state = private_folder(local_services.folder())
    stack = None
    with contextlib.ExitStack() as on_end:
        with _turn(state):
            running = _settled(state, needs_workers=model is not None)
            if running is None:
                stack = Stack(state, workers=model is not None, model=model, command=command)
                on_end.callback(_stop, stack, state, say)
                stack.start()
                running = local_services.find_running(state)
                if running is None:
                    raise StandaloneError(f"the services in {state} have no record: remove the folder and try again")
            elif model is not None:
                _refuse_other_workers(running, model, named=named)
            on_end.enter_context(locked(state / "users.lock", shared=True))
        yield Session(_settings(running), running.model, stack, running)


def _settled(state: Path, *, needs_workers: bool) -> RunningServices | None:
    """Return the running services. Those of a command that only reads are waited for, if workers are needed."""
    while (running := local_services.find_running(state)) is not None:
        if not needs_workers or running.command != READING:
            return running
        time.sleep(_POLL_SECONDS)
    return None


def _refuse_other_workers(running: RunningServices, model: ModelSettings, *, named: bool) -> None:
    whose = f"`maskmill {running.command}` (process {running.pid})"
    if not running.workers:
        raise StandaloneError(f"{whose} runs on this machine without workers: stop it, or start it with workers")
    if named and running.model != model_variables(model):
        other = running.model.get("MASKMILL_MODEL__SOURCE", "another network")
        raise SettingsError(
            f"{whose} runs on this machine with {other}, not {model.source}: wait for its end, or leave out --network"
        )


def _stop(stack: Stack, state: Path, say: Say) -> None:
    """Stop the services once no other command uses them; at once if interrupted."""
    try:
        waits = False
        while True:
            with _turn(state), contextlib.suppress(TimeoutError), locked(state / "users.lock", limit_seconds=0):
                stack.stop()
                return
            if not waits:
                say("another maskmill command uses these services: waiting for its end; Ctrl-C stops them now")
                waits = True
            time.sleep(_POLL_SECONDS)
    except BaseException:
        stack.stop()
        raise


@contextlib.contextmanager
def _turn(state: Path) -> Iterator[None]:
    try:
        with locked(state / "turn.lock", limit_seconds=_TURN_SECONDS):
            yield
    except TimeoutError as error:
        raise StandaloneError(f"another maskmill command has been starting or stopping services: {error}") from error


def _settings(running: RunningServices) -> Settings:
    """Return the settings of this process with the services that run here, whatever others the user has configured."""
    redis, s3 = running.settings["redis"], running.settings["s3"]
    return settings.load(redis=RedisSettings.model_validate(redis), s3=S3Settings.model_validate(s3))
