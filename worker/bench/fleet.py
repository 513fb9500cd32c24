"""`worker bench fleet`: how far one Redis and one steward carry a fleet.

Simulated workers speak the real protocol to a real Redis (see `fleet_worker`), a real steward feeds them and writes
their outcomes to a real S3 server. What Redis and steward spend is measured, per image, chunk and process; fleets that
this machine cannot simulate are predicted from it. What ends first: CPU of Redis (one thread runs all commands), CPU of
the steward (one interpreter), or connections.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.process import Child
from worker.bench.harness.system_under_test import Rig
from worker.bench.harness.usage import usage
from worker.contract.errors import SetupError
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.queue.dispatcher import CHUNK_SECONDS, chunk_images
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo
from worker.cpu import topology
from worker.processes.service import ServiceProcess
from worker.standalone.services import DEFAULT_BUCKET

SCHEMA_VERSION = 1
SATURATED = 0.8
"""Share of a core from which Redis or the steward counts as saturated: above it, waiting times grow without bound."""

MAX_CLIENTS = 10_000
"""Default of Redis' `maxclients`."""

CONNECTIONS_PER_PROCESS = 9
"""Of a worker process to Redis: queue, results, events, control, ledger, presence. `tests/acceptance/test_soak.py`
counts them on a real one, together with those of its node."""

CONNECTIONS_PER_NODE = 6
"""Of its steward."""

MOST_SIMULATED = 1200.0
"""Images per second that the simulating processes are asked to carry beside Redis and steward; more is predicted."""

_LAG_SECONDS = 1.0
_WINDOW = 0.8
"""Of the simulated time, in which CPU times are taken."""
_POLL_SECONDS = 0.2
_DRIVERS = 2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    nodes: tuple[int, ...] = (1, 10, 100, 1000)
    processes: int = 1
    """Of a node."""

    rate: float = 10.0
    """Images per second of a node."""

    seconds: float = 20.0
    """For each number of nodes."""


def run(options: Options, say: Say) -> dict[str, Any]:
    """Measure, then predict.

    Returns:
        The report, ready for JSON: `fleets`, one for each number of nodes, with `images_per_second` and the shares of a
        core that Redis and steward need, `simulated` or predicted; `costs` in microseconds; `carries`: what ends first.

    Raises:
        SetupError: it cannot be measured here.
    """
    machine = topology.read()
    load_before = machine_facts.load_average()
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch, Rig(Path(scratch)) as rig:
        folder = Path(scratch)
        command = [sys.executable, "-m", "worker.steward.process"]
        with ServiceProcess("steward", command, log=folder / "steward.log", env=rig.environment()) as steward:
            for nodes in sorted(options.nodes):
                if nodes * options.rate <= MOST_SIMULATED:
                    say(f"{nodes} nodes: {nodes * options.rate:g} images/s for {options.seconds:g} s")
                    measured.append(_simulate(options, nodes, rig, steward, folder))
        if not measured:
            raise SetupError(f"no fleet of at most {MOST_SIMULATED:g} images/s among those asked for: add --nodes 1")
    costs = _costs(measured)
    known = {one["nodes"]: one for one in measured if one["carried"]}
    fleets = [known.get(nodes) or _predict(options, nodes, costs) for nodes in sorted(options.nodes)]
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "fleet",
        "machine": machine_facts.facts(machine),
        "node": {"processes": options.processes, "images_per_second": options.rate, "chunk_images": _chunk(options)},
        "load_average_before": load_before,
        "load_average_after": machine_facts.load_average(),
        "fleets": fleets,
        "simulations": measured,
        "costs": costs,
        "carries": _carries(options, costs),
    }


def _chunk(options: Options) -> int:
    seconds_per_image = options.processes / options.rate
    return chunk_images(10**9, 1, seconds_per_image)


def _simulate(options: Options, nodes: int, rig: Rig, steward: ServiceProcess, folder: Path) -> dict[str, Any]:
    """One number of nodes, at its real pace."""
    processes = nodes * options.processes
    crowd = [f"worker-{number % options.processes}@node-{number // options.processes}" for number in range(processes)]
    wanted = int(nodes * options.rate * options.seconds * 2) + 2 * processes * _chunk(options)
    job = _job(rig, wanted, _chunk(options))
    drivers = min(_DRIVERS, processes)
    with ThreadPoolExecutor(drivers) as threads:
        asked = [
            threads.submit(_drive, rig, crowd[number::drivers], options, folder / f"crowd-{number}.log")
            for number in range(drivers)
        ]
        while rig.ledger.view(job).done < processes and not any(future.done() for future in asked):
            time.sleep(_POLL_SECONDS)
        before = _look(rig, steward, job)
        time.sleep(options.seconds * _WINDOW)
        after = _look(rig, steward, job)
        answers = [future.result() for future in asked]
        rig.ledger.cancel(job)
    seconds, images = after["at"] - before["at"], after["done"] - before["done"]
    lag = max(answer["lag_seconds"] for answer in answers)
    return {
        "nodes": nodes,
        "processes": processes,
        "simulated": True,
        "carried": lag < _LAG_SECONDS and images > 0,
        "images_per_second": round(images / seconds, 2),
        "redis_cores": round((after["redis"] - before["redis"]) / seconds, 4),
        "steward_cores": round((after["steward"] - before["steward"]) / seconds, 4),
        "redis_commands_per_image": round((after["commands"] - before["commands"]) / max(1, images), 2),
        "call_ms": [max(answer["calls_ms"][part] for answer in answers) for part in (0, 1)],
        "lag_seconds": lag,
        "connections": _connections(options, nodes),
    }


def _drive(rig: Rig, workers: Sequence[str], options: Options, log: Path) -> dict[str, Any]:
    secret = rig.settings.redis.password.get_secret_value()
    request = {
        "job": "simulate",
        "cpus": sorted(os.sched_getaffinity(0)),
        "redis": {"url": rig.settings.redis.url, "password": secret, "prefix": rig.settings.redis.prefix},
        "workers": list(workers),
        "seconds_per_image": options.processes / options.rate,
        "seconds": options.seconds,
    }
    with Child(request, log) as child:
        return child.first


def _job(rig: Rig, images: int, in_chunk: int) -> str:
    """A job whose images exist in its manifest only."""
    job = f"fleet-{uuid.uuid4().hex[:12]}"
    dest = S3Url(DEFAULT_BUCKET, f"{job}/")
    rig.ledger.create(job, JobOptions(source=S3Url(DEFAULT_BUCKET, "none/"), dest=dest), JobPolicy(skip_existing=False))
    writer = manifest.Writer(rig.store, dest, job)
    for number in range(images):
        writer.add(ObjectInfo(f"catalogue/{number // 1000:05d}/photo-{number:09d}.jpg", 400_000, "0" * 32, {}))
    writer.close()
    rig.ledger.seal(job, total=images, chunk_images=in_chunk, size=images * 400_000)
    return job


def _look(rig: Rig, steward: ServiceProcess, job: str) -> dict[str, float]:
    info = rig.ledger.connection.client.info()
    return {
        "at": time.monotonic(),
        "done": rig.ledger.view(job).done,
        "redis": info["used_cpu_sys"] + info["used_cpu_user"],
        "commands": info["total_commands_processed"],
        "steward": usage(steward.pid, ()).total,
    }


def _connections(options: Options, nodes: int) -> int:
    return nodes * (options.processes * CONNECTIONS_PER_PROCESS + CONNECTIONS_PER_NODE)


def _costs(measured: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Microseconds of CPU per image, all that goes with it included, from the largest fleet that was carried."""
    carried = [one for one in measured if one["carried"]] or list(measured)
    largest = max(carried, key=lambda one: one["images_per_second"])
    rate = max(largest["images_per_second"], 1e-9)
    return {
        "redis_us_per_image": round(largest["redis_cores"] / rate * 1e6, 1),
        "steward_us_per_image": round(largest["steward_cores"] / rate * 1e6, 1),
        "redis_commands_per_image": largest["redis_commands_per_image"],
        "from_nodes": largest["nodes"],
    }


def _predict(options: Options, nodes: int, costs: dict[str, float]) -> dict[str, Any]:
    rate = nodes * options.rate
    return {
        "nodes": nodes,
        "processes": nodes * options.processes,
        "simulated": False,
        "images_per_second": round(rate, 2),
        "redis_cores": round(rate * costs["redis_us_per_image"] / 1e6, 4),
        "steward_cores": round(rate * costs["steward_us_per_image"] / 1e6, 4),
        "connections": _connections(options, nodes),
    }


def _carries(options: Options, costs: dict[str, float]) -> dict[str, Any]:
    """Where each part saturates, in images per second and nodes of this kind."""
    limits = {
        "redis": SATURATED / max(costs["redis_us_per_image"], 1e-3) * 1e6,
        "steward": SATURATED / max(costs["steward_us_per_image"], 1e-3) * 1e6,
        "connections": MAX_CLIENTS / _connections(options, 1) * options.rate,
    }
    first = min(limits, key=lambda name: limits[name])
    return {
        "images_per_second": {name: round(rate) for name, rate in limits.items()},
        "nodes": {name: int(rate / options.rate) for name, rate in limits.items()},
        "first": first,
        "chunk_seconds": CHUNK_SECONDS,
    }
