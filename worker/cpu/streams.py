"""Divide the cores of one process into inference streams, and compute their memory.

This is the second half of `placement`: pure functions on numbers. A stream runs one image at a time on its own threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.contract.errors import PlacementError
from worker.contract.settings import PlanSettings
from worker.cpu.memory import process_mib, stream_mib

MIB = 1024 * 1024

FEW_CORES = {1: 1, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1}
"""Cores -> streams below 8 cores. Measured on two cores (512 pixels, bf16 and INT8): two streams of one thread are
faster than one stream of two. The others are not measured: one stream of 3 to 7 threads, because OpenVINO's own
throughput hint leaves a core idle on 5 and 7."""

_THREADS_PER_STREAM = 4
"""OpenVINO's throughput hint chooses 4 threads per stream on 12, 16, 24, 32 and 56 cores."""

_MAX_THREADS_PER_STREAM = 8
"""More threads on one image scale badly; a core set without a better division gets a warning."""


@dataclass(frozen=True)
class Division:
    """Streams and threads of one process."""

    streams: int
    threads: int
    """Over all streams; a multiple of `streams`."""


def default_streams(threads: int) -> int:
    """Return the number of streams for a number of threads, one thread per core; always a divisor.

    From 8 threads on, the threads per stream are the divisor from 2 to 8 that is nearest to 4 as a ratio:
    8 -> 2x4, 9 -> 3x3, 10 -> 2x5, 14 -> 2x7, 22 -> 11x2, 56 -> 14x4. Without such a divisor (11, 13, ...) there is one
    stream.
    """
    if threads in FEW_CORES:
        return FEW_CORES[threads]
    sizes = [size for size in range(2, _MAX_THREADS_PER_STREAM + 1) if threads % size == 0]
    return threads // min(sizes, key=_ratio_to_four, default=threads)


def _ratio_to_four(size: int) -> float:
    return max(size, _THREADS_PER_STREAM) / min(size, _THREADS_PER_STREAM)


def divide(cores: int, settings: PlanSettings, most_streams: int | None = None) -> Division:
    """Divide a core set into streams and threads.

    Args:
        cores: physical cores of the set.
        settings: streams and threads set by hand take precedence.
        most_streams: upper limit, because of memory, for a number of streams that is chosen here.

    Raises:
        PlacementError: numbers set by hand do not fit the set or each other.
    """
    threads = cores if settings.threads is None else settings.threads
    if threads > cores:
        raise PlacementError(
            f"{threads} threads requested in a process that has {cores} cores: "
            f"set MASKMILL_PLAN__THREADS to 1 to {cores}, or lower MASKMILL_PLAN__PROCESSES"
        )
    if settings.streams is not None:
        return _by_hand(settings.streams, threads, settings)
    default = default_streams(threads)
    limit = default if most_streams is None else min(default, most_streams)
    return Division(max(streams for streams in _divisors(threads) if streams <= limit), threads)


def _by_hand(streams: int, threads: int, settings: PlanSettings) -> Division:
    if streams > threads:
        raise PlacementError(
            f"{streams} streams requested, but the process has {threads} threads, and a stream needs at least one: "
            f"set MASKMILL_PLAN__STREAMS to 1 to {threads}, or lower MASKMILL_PLAN__PROCESSES"
        )
    if settings.threads is not None and threads % streams:
        possible = ", ".join(map(str, _divisors(threads)))
        raise PlacementError(
            f"{threads} threads do not divide evenly into {streams} streams: set MASKMILL_PLAN__STREAMS to one of "
            f"{possible}, or MASKMILL_PLAN__THREADS to {threads - threads % streams}"
        )
    return Division(streams, threads - threads % streams)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def scales_badly(division: Division) -> bool:
    """Return whether a stream has more threads than one image keeps busy."""
    return division.threads // division.streams > _MAX_THREADS_PER_STREAM


def memory_mib(divisions: Sequence[Division], settings: PlanSettings) -> int:
    """Return the peak memory of all processes together, in MiB."""
    streams = sum(division.streams for division in divisions)
    return len(divisions) * process_mib(settings) + streams * stream_mib(settings)
