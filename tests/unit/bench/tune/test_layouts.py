"""The layouts that `worker tune` tries, on recorded machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.machines import DATA, unpack
from worker.bench.tune.layouts import MOST_THREADS_PER_STREAM, candidates
from worker.contract.settings import PlanSettings
from worker.cpu import placement, topology
from worker.cpu.topology import Topology


def machine(name: str, tmp_path: Path) -> Topology:
    return topology.read(unpack(DATA / f"{name}.txt", tmp_path))


@pytest.mark.parametrize("name", ["vm-zen3-2", "xeon-w-2145", "cascade-lake-2x20-interleaved", "container-cpuset-odd"])
def test_every_layout_is_a_different_plan_and_the_default_comes_first(name, tmp_path):
    topology_ = machine(name, tmp_path)

    found = candidates(topology_, PlanSettings())

    own = placement.plan(topology_, PlanSettings())
    assert found[0].plan == own
    assert len({(layout.processes, layout.streams) for layout in found}) == len(found)
    for layout in found:
        sets = layout.plan.core_sets
        assert len(sets) == layout.processes
        assert sum(len(cores.cpus) for cores in sets) == sum(len(cores.cpus) for cores in own.core_sets)
        assert all(cores.threads // cores.streams <= max(MOST_THREADS_PER_STREAM, len(cores.cpus)) for cores in sets)


def test_two_cores_are_tried_in_all_three_ways(tmp_path):
    found = candidates(machine("vm-zen3-2", tmp_path), PlanSettings())

    assert {layout.label for layout in found} == {
        "1 process, 2 streams x 1 thread",
        "1 process, 1 stream x 2 threads",
        "2 processes, 1 stream x 1 thread",
    }


def test_numbers_set_by_hand_stay(tmp_path):
    found = candidates(machine("xeon-w-2145", tmp_path), PlanSettings(processes=2, streams=1))

    assert [(layout.processes, layout.streams) for layout in found] == [(2, 1)]


def test_layouts_that_do_not_fit_into_memory_are_left_out(tmp_path):
    two_cores = machine("vm-zen3-2", tmp_path)
    usable = two_cores.memory_bytes >> 20

    found = candidates(two_cores, PlanSettings(memory_per_process_mib=64, memory_per_stream_mib=usable - 100))

    assert {(layout.processes, layout.streams) for layout in found} == {(1, 1)}
