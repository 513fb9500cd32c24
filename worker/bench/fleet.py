"""`worker bench fleet`: how large a fleet one Redis and one steward carry.

Simulated workers speak the real protocol to a real Redis (see `fleet_worker`); a real steward feeds them and writes
their outcomes to a real S3 server. The CPU time of Redis and steward is measured per image; fleets that this machine
cannot simulate are predicted from it. One of three limits comes first: the CPU of Redis (one thread runs all commands),
the CPU of the steward (one interpreter), or connections.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from worker.bench.fleet_report import SATURATED, SCHEMA_VERSION, Capacity, Costs, Fleet, FleetReport
from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress
from worker.bench.harness.process import once
from worker.bench.harness.requests import SimulationAnswer, SimulationRequest
from worker.bench.harness.system_under_test import SystemUnderTest
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

MAX_CLIENTS = 10_000
"""Default of Redis' `maxclients`."""

CONNECTIONS_PER_PROCESS = 9
"""Connections of a worker process to Redis: queue, results, events, control, ledger, heartbeat.
`tests/acceptance/test_soak.py` counts them on a real process, together with those of its node."""

CONNECTIONS_PER_NODE = 6
"""Connections of the steward of a node."""

MAX_SIMULATED = 1200.0
"""Images per second that the simulating processes can carry beside Redis and steward; larger rates are predicted."""

_LAG_SECONDS = 1.0
"""A simulation that is later than this did not keep up."""
_MEASURED_SHARE = 0.8
"""Share of the simulated time in which CPU time is measured."""
_POLL_SECONDS = 0.2
_SIMULATING_PROCESSES = 2


@dataclass(frozen=True)
class FleetOptions:
    """What to measure."""

    nodes: tuple[int, ...] = (1, 10, 100, 1000)
    processes: int = 1
    """Worker processes of a node."""

    rate: float = 10.0
    """Images per second of a node."""

    seconds: float = 20.0
    """Simulated time for each number of nodes."""


@dataclass(frozen=True)
class _Moment:
    """Counters of Redis, steward and job at one moment."""

    at: float
    """On the monotonic clock, in seconds."""
    done: int
    redis_cpu_seconds: float
    redis_commands: int
    steward_cpu_seconds: float


def run(options: FleetOptions, on_progress: OnProgress) -> FleetReport:
    """Simulate the fleets that this machine can carry, and predict the others.

    Raises:
        SetupError: none of the fleets can be simulated here.
    """
    machine = topology.read()
    load_before = machine_facts.load_average()
    measured = _simulations(options, on_progress)
    costs = _costs(measured)
    known = {one["nodes"]: one for one in measured if one["carried"]}
    fleets = [known.get(nodes) or _predict(options, nodes, costs) for nodes in sorted(options.nodes)]
    return FleetReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "fleet",
            "machine": machine_facts.facts(machine),
            "node": {
                "processes": options.processes,
                "images_per_second": options.rate,
                "chunk_images": _chunk(options),
            },
            "load_average_before": load_before,
            "load_average_after": machine_facts.load_average(),
            "fleets": fleets,
            "simulations": measured,
            "costs": costs,
            "carries": _carries(options, costs),
        }
    )


def _simulations(options: FleetOptions, on_progress: OnProgress) -> list[Fleet]:
    """Simulate every fleet of at most `MAX_SIMULATED` images/s.

    Raises:
        SetupError: there is none.
    """
    measured: list[Fleet] = []
    with tempfile.TemporaryDirectory(prefix="maskmill-bench-") as scratch, SystemUnderTest(Path(scratch)) as system:
        folder = Path(scratch)
        command = [sys.executable, "-m", "worker.steward.process"]
        with ServiceProcess("steward", command, log=folder / "steward.log", env=system.environment()) as steward:
            for nodes in sorted(options.nodes):
                if nodes * options.rate <= MAX_SIMULATED:
                    on_progress(f"{nodes} nodes: {nodes * options.rate:g} images/s for {options.seconds:g} s")
                    measured.append(_simulate(options, nodes, system, steward, folder))
    if not measured:
        raise SetupError(f"every fleet asked for is faster than {MAX_SIMULATED:g} images/s: add --nodes 1")
    return measured


def _chunk(options: FleetOptions) -> int:
    seconds_per_image = options.processes / options.rate
    return chunk_images(10**9, 1, seconds_per_image)


def _simulate(
    options: FleetOptions, nodes: int, system: SystemUnderTest, steward: ServiceProcess, folder: Path
) -> Fleet:
    """Run one number of nodes at its real pace."""
    processes = nodes * options.processes
    names = [f"worker-{number % options.processes}@node-{number // options.processes}" for number in range(processes)]
    images_needed = int(nodes * options.rate * options.seconds * 2) + 2 * processes * _chunk(options)
    job = _job(system, images_needed, _chunk(options))
    shares = min(_SIMULATING_PROCESSES, processes)
    with ThreadPoolExecutor(shares) as threads:
        futures = [
            threads.submit(_simulate_workers, system, names[number::shares], options, folder / f"workers-{number}.log")
            for number in range(shares)
        ]
        while system.ledger.view(job).done < processes and not any(future.done() for future in futures):
            time.sleep(_POLL_SECONDS)
        before = _moment(system, steward, job)
        time.sleep(options.seconds * _MEASURED_SHARE)
        after = _moment(system, steward, job)
        answers = [future.result() for future in futures]
        system.ledger.cancel(job)
    seconds, images = after.at - before.at, after.done - before.done
    lag = max(answer["lag_seconds"] for answer in answers)
    commands = after.redis_commands - before.redis_commands
    return {
        "nodes": nodes,
        "processes": processes,
        "simulated": True,
        "carried": lag < _LAG_SECONDS and images > 0,
        "images_per_second": round(images / seconds, 2),
        "redis_cores": round((after.redis_cpu_seconds - before.redis_cpu_seconds) / seconds, 4),
        "steward_cores": round((after.steward_cpu_seconds - before.steward_cpu_seconds) / seconds, 4),
        "redis_commands_per_image": round(commands / max(1, images), 2),
        "call_ms": [max(answer["calls_ms"][part] for answer in answers) for part in (0, 1)],
        "lag_seconds": lag,
        "connections": _connections(options, nodes),
    }


def _simulate_workers(
    system: SystemUnderTest, workers: Sequence[str], options: FleetOptions, log: Path
) -> SimulationAnswer:
    """Simulate workers in a child process and wait for its answer."""
    secret = system.settings.redis.password.get_secret_value()
    request: SimulationRequest = {
        "job": "simulate",
        "cpus": sorted(os.sched_getaffinity(0)),
        "redis": {"url": system.settings.redis.url, "password": secret, "prefix": system.settings.redis.prefix},
        "workers": list(workers),
        "seconds_per_image": options.processes / options.rate,
        "seconds": options.seconds,
    }
    return cast(SimulationAnswer, once(request, log))


def _job(system: SystemUnderTest, images: int, in_chunk: int) -> str:
    """Create a job whose images exist only in its manifest; return its id."""
    job = f"fleet-{uuid.uuid4().hex[:12]}"
    dest = S3Url(DEFAULT_BUCKET, f"{job}/")
    system.ledger.create(
        job, JobOptions(source=S3Url(DEFAULT_BUCKET, "none/"), dest=dest), JobPolicy(skip_existing=False)
    )
    writer = manifest.Writer(system.store, dest, job)
    for number in range(images):
        writer.add(ObjectInfo(f"catalogue/{number // 1000:05d}/photo-{number:09d}.jpg", 400_000, "0" * 32, {}))
    writer.close()
    system.ledger.seal(job, total=images, chunk_images=in_chunk, size=images * 400_000)
    return job


def _moment(system: SystemUnderTest, steward: ServiceProcess, job: str) -> _Moment:
    info = system.ledger.connection.client.info()
    return _Moment(
        at=time.monotonic(),
        done=system.ledger.view(job).done,
        redis_cpu_seconds=info["used_cpu_sys"] + info["used_cpu_user"],
        redis_commands=info["total_commands_processed"],
        steward_cpu_seconds=usage(steward.pid, ()).total,
    )


def _connections(options: FleetOptions, nodes: int) -> int:
    return nodes * (options.processes * CONNECTIONS_PER_PROCESS + CONNECTIONS_PER_NODE)


def _costs(measured: Sequence[Fleet]) -> Costs:
    """Return the costs per image, all overhead included, of the largest fleet that kept up."""
    carried = [one for one in measured if one["carried"]] or list(measured)
    largest = max(carried, key=lambda one: one["images_per_second"])
    rate = max(largest["images_per_second"], 1e-9)
    return {
        "redis_us_per_image": round(largest["redis_cores"] / rate * 1e6, 1),
        "steward_us_per_image": round(largest["steward_cores"] / rate * 1e6, 1),
        "redis_commands_per_image": largest["redis_commands_per_image"],
        "from_nodes": largest["nodes"],
    }


def _predict(options: FleetOptions, nodes: int, costs: Costs) -> Fleet:
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


def _carries(options: FleetOptions, costs: Costs) -> Capacity:
    """Return where each part saturates, in images per second and in nodes of this kind."""
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
