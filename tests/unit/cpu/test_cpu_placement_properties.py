"""Properties of the plan of any machine."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from worker.contract.errors import PlacementError
from worker.contract.settings import PlanSettings
from worker.cpu.cores import MAX_CORES
from worker.cpu.placement import plan
from worker.cpu.topology import LogicalCpu, Topology

PLENTY = 1 << 50
ALWAYS_PLENTY = st.just(PLENTY)


@st.composite
def machines(draw, memory=ALWAYS_PLENTY):
    """Draw packages of NUMA nodes of L3 groups of cores of one or two threads, numbered in any order, partly usable."""
    smt = draw(st.sampled_from([1, 2]))
    l3_sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    nodes = draw(st.lists(st.integers(0, 2), min_size=len(l3_sizes), max_size=len(l3_sizes)))
    ids = list(range(sum(l3_sizes) * smt))
    draw(st.randoms(use_true_random=False)).shuffle(ids)
    cpus = []
    for size, node in zip(l3_sizes, sorted(nodes), strict=True):
        cores = [sorted(ids.pop() for _ in range(smt)) for _ in range(size)]
        l3 = min(cpu for core in cores for cpu in core)
        cpus += [LogicalCpu(cpu, node // 2, core[0], node, l3) for core in cores for cpu in core]
    every = sorted(cpu.id for cpu in cpus)
    usable = draw(st.one_of(st.just(frozenset(every)), st.frozensets(st.sampled_from(every), min_size=1)))
    return Topology(
        cpus=tuple(sorted(cpus, key=lambda cpu: cpu.id)),
        usable=usable,
        affinity=usable,
        cpuset=None,
        cpuset_file="",
        quota_cpus=draw(st.one_of(st.none(), st.floats(0.1, 250))),
        quota_file="/q",
        memory_bytes=draw(memory),
        memory_file="/m",
        memory_available_bytes=PLENTY,
        flags=frozenset(),
        model_name="any",
        notes=(),
    )


def check_sets(topology, result):
    """Assert what holds for every plan, also with numbers set by hand."""
    by_id = {cpu.id: cpu for cpu in topology.cpus}
    used = [cpu for s in result.core_sets for cpu in s.cpus]
    assert len(used) == len(set(used)), "sets are disjoint"
    assert set(used) <= topology.usable
    assert len({by_id[cpu].core for cpu in used}) == len(used), "one sibling for each core"
    for s in result.core_sets:
        assert list(s.cpus) == sorted(s.cpus)
        assert {(by_id[cpu].node, by_id[cpu].l3, by_id[cpu].package) for cpu in s.cpus} == {(s.node, s.l3, s.package)}
        assert 1 <= s.streams <= s.threads <= len(s.cpus)
        assert s.threads % s.streams == 0
    if topology.quota_cpus is not None:
        assert len(used) <= max(1, topology.quota_cpus)


def physical_cores(topology):
    return len({cpu.core for cpu in topology.cpus if cpu.id in topology.usable})


@given(machines())
@settings(deadline=None, database=None)
def test_an_automatic_plan_uses_all_that_is_granted(topology):
    result = plan(topology, PlanSettings())

    check_sets(topology, result)
    assert all(s.threads == len(s.cpus) <= MAX_CORES for s in result.core_sets)
    granted = physical_cores(topology)
    if topology.quota_cpus is not None:
        granted = min(granted, max(1, int(topology.quota_cpus)))
    assert sum(s.threads for s in result.core_sets) == granted


@given(machines())
@settings(deadline=None, database=None)
def test_the_lowest_usable_sibling_stands_for_each_core(topology):
    lowest = {}
    for cpu in topology.cpus:
        if cpu.id in topology.usable:
            lowest.setdefault(cpu.core, cpu.id)

    used = {cpu for s in plan(topology, PlanSettings()).core_sets for cpu in s.cpus}

    assert used <= set(lowest.values())


@given(machines())
@settings(deadline=None, database=None)
def test_a_quota_is_met_in_the_fewest_groups(topology):
    assume(topology.quota_cpus is not None)
    by_id = {cpu.id: cpu for cpu in topology.cpus}
    sizes = {}
    for cpu in {by_id[c].core: by_id[c] for c in topology.usable}.values():
        sizes[cpu.node, cpu.l3] = sizes.get((cpu.node, cpu.l3), 0) + 1
    wanted, fewest = min(max(1, int(topology.quota_cpus)), sum(sizes.values())), 0
    for size in sorted(sizes.values(), reverse=True):
        if wanted > 0:
            wanted, fewest = wanted - size, fewest + 1

    assert len({(s.node, s.l3) for s in plan(topology, PlanSettings()).core_sets}) == fewest


@given(machines(memory=st.integers(0, 80 << 30)))
@settings(deadline=None, database=None)
def test_memory_is_never_overrun(topology):
    try:
        result = plan(topology, PlanSettings())
    except PlacementError:
        assert topology.memory_bytes < (512 + 1024) << 20, "one stream in one process would have fitted"
        return
    check_sets(topology, result)
    streams = sum(s.streams for s in result.core_sets)
    assert (len(result.core_sets) * 512 + streams * 1024) << 20 <= topology.memory_bytes


optional = st.one_of(st.none(), st.integers(1, 48))


@given(machines(), optional, optional, optional)
@settings(deadline=None, database=None)
def test_numbers_set_by_hand_are_met_or_refused(topology, processes, streams, threads):
    try:
        result = plan(topology, PlanSettings(processes=processes, streams=streams, threads=threads))
    except PlacementError as error:
        assert "MASKMILL_PLAN__" in str(error)
        return
    check_sets(topology, result)
    assert processes in (None, len(result.core_sets))
    for s in result.core_sets:
        assert streams in (None, s.streams)
        assert threads in (None, s.threads)
        if threads is None:
            assert s.threads == len(s.cpus) - len(s.cpus) % (streams or 1)


@given(machines(), st.integers(1, 200))
@settings(deadline=None, database=None)
def test_any_number_of_processes_up_to_the_cores_is_possible(topology, processes):
    granted = physical_cores(topology)
    if topology.quota_cpus is not None:
        granted = min(granted, max(1, int(topology.quota_cpus)))
    try:
        plan(topology, PlanSettings(processes=processes))
    except PlacementError:
        assert processes > granted
    else:
        assert processes <= granted
