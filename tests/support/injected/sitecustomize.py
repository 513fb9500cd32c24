"""Faults inside real processes: Python imports this module at start-up if this folder is on PYTHONPATH.

The product does not know it. The variable `FAULTS` (JSON of `support.fault_injection.Faults`) describes the faults of
one test. Each module concerned is patched right after its import; no module is imported earlier than without faults.
`STEPPED_CLOCK` names the file of another wall clock (see `support.clocks`), on which kombu's leases depend. With
`NAME_REQUESTS`, requests to S3 say which process makes them; with `SMALL_NETWORK`, BiRefNet is built small.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FAULTS: dict[str, Any] = json.loads(os.environ.get("FAULTS", "{}"))


def off(safeguard: str) -> bool:
    """Return whether this safeguard is disabled."""
    return safeguard in FAULTS["off"]


def taken(token: str) -> bool:
    """Remove one of the tokens `TOKEN-*`, each of which is one fault to come; return False if none is left."""
    for path in Path(FAULTS["tokens"]).glob(f"{token}-*"):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        return True
    return False


def die() -> None:
    """End like a victim of the kernel's out-of-memory killer, without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def wrapped(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Return a decorator that replaces `owner.name` by the function, which gets the original as its first argument."""
    original = getattr(owner, name)

    def put(replacement: Callable[..., Any]) -> None:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs)

        setattr(owner, name, call)

    return put


# -- faults -----------------------------------------------------------------------------------------------------------


def poison(key: str) -> None:
    """Fail in native code if the key of the image asks for it."""
    if "poison-segfault" in key:
        ctypes.string_at(0)
    elif "poison-hang" in key:
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter lock, so every thread of the process stops


def pipeline(module: ModuleType) -> None:
    """Record every execution of an image, take `image_seconds` for it, and let poison act."""

    @wrapped(module.Pipeline, "_transform")
    def transform(original: Callable[..., Any], self: Any, work: Any, *args: Any) -> Any:
        with Path(FAULTS["executions"]).open("a") as file:  # one short write is atomic among processes that append
            file.write(f"{work.key}\t{os.getpid()}\n")
        time.sleep(FAULTS["image_seconds"])
        poison(work.key)
        return original(self, work, *args)

    if off("skip"):

        @wrapped(module.Pipeline, "run")
        def run(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, *args, **kwargs | {"skip_own": False})


def transport(module: ModuleType) -> None:
    """Stretch, or die in, the gap between the reply to BRPOP and the entry in `unacked`, when a message is nowhere."""

    @wrapped(module.QoS, "append")
    def append(original: Callable[..., Any], self: Any, *args: Any) -> Any:
        if taken("lose"):
            die()
        time.sleep(FAULTS["gap_seconds"])
        return original(self, *args)


def broker(module: ModuleType) -> None:
    """Apply the Celery settings of the test."""

    @wrapped(module, "make_celery")
    def make_celery(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        app = original(*args, **kwargs)
        for name, value in FAULTS["celery"].items():
            app.conf[name] = {**app.conf[name], **value} if isinstance(value, dict) else value
        return app


def dispatch(module: ModuleType) -> None:
    """Let the leader die after it has published half of the chunks it took (none, if it took one)."""

    @wrapped(module.Dispatcher, "send")
    def send(original: Callable[..., Any], self: Any, view: Any, chunks: Sequence[int], **kwargs: Any) -> None:
        if "worker.steward.process" in sys.orig_argv and taken("half-batch"):
            original(self, view, chunks[: len(chunks) // 2], **kwargs)
            die()
        original(self, view, chunks, **kwargs)


def model_process(module: ModuleType) -> None:
    """A big model that takes long to load."""

    @wrapped(module, "find_bundle")
    def find_bundle(original: Callable[..., Any], *args: Any) -> Any:
        if taken("slow-load"):
            time.sleep(FAULTS["load_seconds"])
        return original(*args)


def reconciler(module: ModuleType) -> None:
    """Lost chunks are not published again."""
    if off("reconciler"):
        module.Reconciler.scan = lambda self: 0  # type: ignore[attr-defined]
    if off("recheck"):
        module.Reconciler.recheck = lambda self: None  # type: ignore[attr-defined]
    if off("reconciler") or off("change"):
        module.Reconciler.scan_after_change = lambda self, seconds: 0  # type: ignore[attr-defined]


def lease(module: ModuleType) -> None:
    """Leases expire although their holder works."""
    if off("renewal"):
        module.LeaseRenewal.start = lambda self, parent: None  # type: ignore[attr-defined]


def watchdog(module: ModuleType) -> None:
    """Model processes that hang are not killed."""
    if off("watchdog"):
        module.kill_if_stuck = lambda channel, limit: False  # type: ignore[attr-defined]


def chunk_ledger(module: ModuleType) -> None:
    """No image runs alone or is recorded as dead; or a chunk runs although another worker runs it or has run it."""
    store_pauses(module)
    if off("careful"):
        module.SPLIT_AFTER = 10**6  # type: ignore[attr-defined]
    if not off("verdict"):
        return

    @wrapped(module.ChunkLedger, "start")
    def start(original: Callable[..., Any], self: Any, message: Any, worker: str) -> Any:
        lease = original(self, message, worker)
        if lease.verdict not in (module.Verdict.BUSY, module.Verdict.DONE):
            return lease
        return dataclasses.replace(lease, verdict=module.Verdict.RUN, outcomes=(None,) * len(message.keys))


CUTS = {
    # safeguard -> script, and what it is replaced with
    "once": (
        ("record", "(old == 0 or (old > SKIPPED and new <= SKIPPED))", "true"),
        ("record", "if old > 0 then moved[old]", "if false then moved[old]"),
    ),
    "recheck": (("start", "job[10] and job[10] ~= server", "false"),),
    "returned": (("take", "while #taken < wanted do\n", "while false do\n"),),
}


def connection(module: ModuleType) -> None:
    """Scripts of the ledger lack a condition."""
    cuts = [cut for safeguard, several in CUTS.items() if off(safeguard) for cut in several]

    @wrapped(module.RedisConnection, "script")
    def script(original: Callable[..., Any], self: Any, name: str) -> Any:
        ours = [cut for cut in cuts if cut[0] == name]
        if not ours or name in self._scripts:
            return original(self, name)
        text: str = original(self, name).script
        for _, condition, instead in ours:
            if condition not in text:
                raise AssertionError(f"{name}.lua has no `{condition}`: the control run proves nothing")
            text = text.replace(condition, instead, 1)
        self._scripts[name] = self.client.register_script(text)
        return self._scripts[name]


def store_pauses(module: ModuleType) -> None:
    """The pauses of a chunk for which S3 failed, and of its job, are multiplied by `store_pauses`."""
    names = (
        "RETRY_PAUSE_SECONDS",
        "STORE_RETRY_SECONDS",
        "STORE_PAUSE_SECONDS",
        "MAX_STORE_PAUSE_SECONDS",
        "STORE_PAUSE_FACTOR",
        "MAX_LONG_STORE_PAUSE_SECONDS",
    )
    for name in names:
        if hasattr(module, name):
            setattr(module, name, FAULTS["store_pauses"] * getattr(module, name))


def supervisor(module: ModuleType) -> None:
    """Restarts wait `back_off_seconds` at most; by default that is 30 s."""
    module._MAX_BACK_OFF_SECONDS = FAULTS["back_off_seconds"]  # type: ignore[attr-defined]


def messages(module: ModuleType) -> None:
    """Messages have the schema of a later release."""
    if FAULTS["schema"]:
        module.ChunkMessage.SCHEMA = FAULTS["schema"]
        module.ChunkMessage.model_fields["schema_version"].default = FAULTS["schema"]
        module.ChunkMessage.model_rebuild(force=True)


def primary(module: ModuleType) -> None:
    """Connections to a server that is no longer the primary are kept, or its refusals are errors of other kinds."""
    if off("watch"):
        module._Sentinels.watch = lambda self, connection: None  # type: ignore[attr-defined]
    if off("demoted"):
        del module._Following.read_response


CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "kombu.transport.redis": transport,
    "worker.runner.process": model_process,
    "worker.contract.queue.celery_app": broker,
    "worker.contract.queue.dispatcher": dispatch,
    "worker.contract.ledger.chunks": chunk_ledger,
    "worker.contract.ledger.connection": connection,
    "worker.contract.messages": messages,
    "worker.contract.ledger.primary": primary,
    "worker.consumer.lease": lease,
    "worker.runner.chunks": store_pauses,
    "worker.runner.pipeline": pipeline,
    "worker.steward.reconciler": reconciler,
    "worker.node.supervisor": supervisor,
    "worker.consumer.watchdog": watchdog,
}


def name_requests(module: ModuleType) -> None:
    """Requests to S3 carry the host, the process and its ancestors: `process/HOST.PID.PARENT.GRANDPARENT`."""
    agent = module._USER_AGENT

    @wrapped(module.ObjectStore, "__init__")
    def init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
        line, pid = [], os.getpid()
        while pid > 1 and len(line) < 4:  # model process, consumer, supervisor, and what started it
            line.append(str(pid))
            stat = Path(f"/proc/{pid}/stat").read_text()
            pid = int(stat.rpartition(")")[2].split()[1])
        module._USER_AGENT = f"{agent} process/{'.'.join([socket.gethostname(), *line])}"  # type: ignore[attr-defined]
        original(self, *args, **kwargs)


def small_network(module: ModuleType) -> None:
    """BiRefNet is a network of two convolutions: it loads in a second, where the real one takes ten."""

    def build(weights: Any, size: Any, rewrites: Any = ()) -> Any:
        import numpy as np

        ops, noise = module.opset, np.random.default_rng(7).normal
        image = ops.parameter([1, 3, size.height, size.width], np.float32, name="image")
        first = ops.constant(noise(size=(8, 3, 3, 3)).astype(np.float32))
        second = ops.constant(noise(size=(1, 8, 1, 1)).astype(np.float32))
        hidden = ops.relu(ops.convolution(image, first, [1, 1], [1, 1], [1, 1], [1, 1]))
        return module.ov.Model([ops.convolution(hidden, second, [1, 1], [0, 0], [0, 0], [1, 1])], [image], "small")

    module.build = build  # type: ignore[attr-defined]


class Finder(importlib.abc.MetaPathFinder):
    """Finds a module through the other finders and patches it after its execution."""

    def __init__(self, changes: Mapping[str, Callable[[ModuleType], None]]) -> None:
        """Patch nothing yet; `changes` holds a function for each module."""
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module to patch; None for any other module."""
        if name not in self._changes:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._changes[name](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def stepped(file: Path, real: Callable[[], float]) -> Callable[[], float]:
    """Return a wall clock that is ahead of the machine's by the seconds in a file, which it reads twice a second."""
    looked, offset = float("-inf"), 0.0

    def now() -> float:
        nonlocal looked, offset
        moment = time.monotonic()
        if moment - looked > 0.5:
            looked, offset = moment, float(file.read_text())
        return real() + offset

    return now


if FAULTS:
    sys.meta_path.insert(0, Finder(CHANGES))
if "NAME_REQUESTS" in os.environ:
    sys.meta_path.insert(0, Finder({"worker.contract.storage.s3": name_requests}))
if "SMALL_NETWORK" in os.environ:
    sys.meta_path.insert(0, Finder({"worker.convert.birefnet.network": small_network}))
if "STEPPED_CLOCK" in os.environ:
    time.time = stepped(Path(os.environ["STEPPED_CLOCK"]), time.time)
