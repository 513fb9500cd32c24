"""Plans of recorded machines, numbers set by hand, and memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from worker.contract.errors import PlacementError
from worker.contract.settings import PlanSettings
from worker.cpu import topology
from worker.cpu.kernel import parse_cpu_list
from worker.cpu.placement import plan
from worker.cpu.streams import MIB, default_streams

PLENTY = 1 << 50

STREAMS = {1: 1, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 2, 9: 3, 10: 2, 11: 1, 12: 3, 13: 1, 14: 2, 15: 3, 16: 4}
STREAMS |= {18: 6, 20: 5, 21: 7, 22: 11, 24: 6, 25: 5, 26: 13, 28: 7, 30: 6, 31: 1, 32: 8, 56: 14}
"""Threads -> expected streams."""


@pytest.fixture
def seen(machine):
    """Read the topology of a recorded machine, by default with ample memory."""

    def read(name, memory_bytes=PLENTY, **changes):
        return replace(
            topology.read(machine(name)), memory_bytes=memory_bytes, memory_available_bytes=PLENTY, **changes
        )

    return read


def shapes(result):
    return [(len(s.cpus), s.streams, s.threads // s.streams) for s in result.core_sets]


def cpus(text):
    return tuple(sorted(parse_cpu_list(text, "test")))


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("vm-zen3-2", [("0-1", 0, 2, 1)]),
        ("xeon-w-2145", [("0-7", 0, 2, 4)]),
        ("cascade-lake-2x20-interleaved", [("0-38:2", 0, 5, 4), ("1-39:2", 1, 5, 4)]),
        (
            "sapphire-rapids-56-snc4",
            [("0-13", 0, 2, 7), ("14-27", 1, 2, 7), ("28-41", 2, 2, 7), ("42-55", 3, 2, 7)],
        ),
        ("sapphire-rapids-56", [("0-27", 0, 7, 4), ("28-55", 0, 7, 4)]),
        ("epyc-9334-nps1", [("0-7", 0, 2, 4), ("8-15", 0, 2, 4), ("16-23", 0, 2, 4), ("24-31", 0, 2, 4)]),
        ("container-v2-quota", [("0-2", 0, 1, 3)]),
        ("container-v1-quota", [("0-1", 0, 2, 1)]),
        ("container-cpuset-odd", [("1,3,5,7", 0, 1, 4)]),
        ("systemd-slice-v2", [("0-3", 0, 1, 4)]),
        ("affinity-in-cpuset", [("2-3", 0, 2, 1)]),
        ("offline-holes", [("0,2,5,7", 0, 1, 4)]),
        ("hybrid-12700", [("0-14:2,16-19", 0, 3, 4)]),
        ("bare-sandbox", [("0-3", 0, 1, 4)]),
        ("vm-8-sockets", [("0-7", 0, 2, 4)]),
    ],
)
def test_plans_of_recorded_machines(seen, name, sets):
    result = plan(seen(name), PlanSettings())

    expected = [(cpus(list_), node, streams, streams * threads) for list_, node, streams, threads in sets]
    assert [(s.cpus, s.node, s.streams, s.threads) for s in result.core_sets] == expected
    assert [s.index for s in result.core_sets] == list(range(len(sets)))


@pytest.mark.parametrize(
    ("threads", "streams"),
    list(STREAMS.items()),
)
def test_streams_that_are_chosen(threads, streams):
    assert default_streams(threads) == streams


def test_the_lowest_usable_sibling_stands_for_its_core(seen):
    # Without CPUs 0-3, only the upper siblings 8-11 of their cores are left.
    result = plan(seen("xeon-w-2145", usable=frozenset(range(4, 16))), PlanSettings())

    assert result.core_sets[0].cpus == (4, 5, 6, 7, 8, 9, 10, 11)


@pytest.mark.parametrize(
    ("quota", "sets"),
    [
        (32, [8, 8, 8, 8]),
        (40, [8, 8, 8, 8]),
        (31.9, [8, 8, 8, 7]),
        (16, [8, 8]),
        (12.5, [8, 4]),
        (8, [8]),
        (3, [3]),
        (1, [1]),
        (0.2, [1]),
    ],
)
def test_a_quota_is_met_in_as_few_groups_as_possible(seen, quota, sets):
    result = plan(seen("epyc-9334-nps1", quota_cpus=quota, quota_file="/q"), PlanSettings())

    assert [len(s.cpus) for s in result.core_sets] == sets


def test_a_quota_prefers_the_group_that_it_fills(seen):
    # Groups of 8, 3, 8 and 8 cores: a quota of three CPUs fits the small one.
    usable = frozenset(range(32)) - frozenset(range(11, 16))

    result = plan(seen("epyc-9334-nps1", usable=usable, quota_cpus=3.0, quota_file="/q"), PlanSettings())

    assert [s.cpus for s in result.core_sets] == [(8, 9, 10)]


@pytest.mark.parametrize(
    ("quota", "warning"), [(0.4, "throttled for 60% of the time"), (3.5, "Set a whole number of CPUs"), (3.0, None)]
)
def test_a_quota_below_one_or_with_a_fraction_gives_a_warning(seen, quota, warning):
    result = plan(seen("xeon-w-2145", quota_cpus=quota, quota_file="/q"), PlanSettings())

    assert len(result.warnings) == (1 if warning else 0)
    assert all(warning in text for text in result.warnings)


@pytest.mark.parametrize(
    ("name", "processes", "sets"),
    [
        ("xeon-w-2145", 1, [(8, 2, 4)]),
        ("xeon-w-2145", 2, [(4, 1, 4), (4, 1, 4)]),
        ("xeon-w-2145", 3, [(3, 1, 3), (3, 1, 3), (2, 2, 1)]),
        ("xeon-w-2145", 8, [(1, 1, 1)] * 8),
        ("cascade-lake-2x20-interleaved", 1, [(20, 5, 4)]),
        ("cascade-lake-2x20-interleaved", 3, [(10, 2, 5), (10, 2, 5), (20, 5, 4)]),
        ("cascade-lake-2x20-interleaved", 10, [(4, 1, 4)] * 10),
        ("sapphire-rapids-56", 1, [(56, 14, 4)]),
    ],
)
def test_processes_set_by_hand(seen, name, processes, sets):
    result = plan(seen(name), PlanSettings(processes=processes))

    assert shapes(result) == sets
    assert any("set by hand" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"streams": 1}, (8, 1, 8)),
        ({"streams": 4}, (8, 4, 2)),
        ({"streams": 8}, (8, 8, 1)),
        ({"streams": 3}, (8, 3, 2)),
        ({"threads": 4}, (8, 1, 4)),
        ({"threads": 7}, (8, 1, 7)),
        ({"threads": 6, "streams": 3}, (8, 3, 2)),
        ({"processes": 2, "threads": 2, "streams": 1}, (4, 1, 2)),
    ],
)
def test_streams_and_threads_set_by_hand(seen, settings, shape):
    result = plan(seen("xeon-w-2145"), PlanSettings(**settings))

    assert set(shapes(result)) == {shape}
    idle = (shape[0] - shape[1] * shape[2]) * len(result.core_sets)
    assert (f"{idle} core" in " ".join(result.warnings)) == bool(idle)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"processes": 9}, "9 processes requested, but there are 8 physical cores: set"),
        ({"threads": 9}, "9 threads requested in a process that has 8 cores"),
        ({"streams": 9}, "9 streams requested, but the process has 8 threads"),
        (
            {"threads": 6, "streams": 4},
            "set MASKMILL_PLAN__STREAMS to one of 1, 2, 3, 6, or MASKMILL_PLAN__THREADS to 4",
        ),
        ({"processes": 3, "threads": 3}, "3 threads requested in a process that has 2 cores"),
        ({"threads": 2, "streams": 3}, "3 streams requested, but the process has 2 threads"),
    ],
)
def test_impossible_numbers_are_refused_with_what_is_possible(seen, settings, words):
    with pytest.raises(PlacementError) as caught:
        plan(seen("xeon-w-2145"), PlanSettings(**settings))

    assert words in str(caught.value)


def test_groups_that_get_no_process_are_warned_about(seen):
    result = plan(seen("epyc-9334-nps1"), PlanSettings(processes=3))

    assert [s.node for s in result.core_sets] == [0, 0, 0]
    assert result.warnings == ("8 cores of 32 idle: 3 of 4 groups have a process.",)


def test_processes_of_different_size_are_warned_about(seen):
    assert "2 to 3 cores" in plan(seen("xeon-w-2145"), PlanSettings(processes=3)).warnings[0]


def test_a_set_without_a_good_division_is_warned_about(seen):
    result = plan(seen("sapphire-rapids-56", usable=frozenset(range(31))), PlanSettings())

    assert shapes(result) == [(31, 1, 31)]
    assert "MASKMILL_PLAN__THREADS=28 and MASKMILL_PLAN__STREAMS=7" in result.warnings[0]


@pytest.mark.parametrize(
    ("memory_mib", "sets"),
    [
        # two processes of 28 cores: 2 x 100 + streams x 1000
        (14200, [(28, 7, 4)] * 2),
        (14199, [(28, 4, 7)] * 2),
        (8199, [(28, 2, 14)] * 2),
        (4199, [(28, 1, 28)] * 2),
        # too little for two processes: one of 56 cores, with as many streams as fit
        (2199, [(56, 2, 28)]),
        (1100, [(56, 1, 56)]),
    ],
)
def test_memory_costs_streams_first_and_processes_next(seen, memory_mib, sets):
    settings = PlanSettings(memory_per_stream_mib=1000, memory_per_process_mib=100)

    result = plan(seen("sapphire-rapids-56", memory_bytes=memory_mib * MIB), settings)

    assert shapes(result) == sets
    assert result.memory_needed_mib <= memory_mib == result.memory_usable_mib
    assert any("memory" in reason and "would not fit" in reason for reason in result.reasons) == (memory_mib < 14200)


def test_fewer_processes_than_groups_leave_cores_idle_with_a_warning(seen):
    result = plan(seen("epyc-9334-nps1", memory_bytes=3100 * MIB), PlanSettings())

    assert shapes(result) == [(8, 1, 8), (8, 1, 8)]
    assert "2 processes instead of 4: more would not fit into memory." in result.reasons
    assert "16 cores of 32 idle: 2 of 4 groups have a process." in result.warnings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "1 processes x 512 MiB + 1 streams x 1024 MiB = 1536 MiB do not fit into the 1535 MiB of /proc/meminfo"),
        ({"processes": 2}, "2 processes x 512 MiB + 2 streams x 1024 MiB = 3072 MiB"),
        ({"processes": 2}, "lower or unset MASKMILL_PLAN__PROCESSES"),
        ({"streams": 2}, "1 processes x 512 MiB + 2 streams x 1024 MiB = 2560 MiB"),
        ({"streams": 2}, "lower or unset MASKMILL_PLAN__STREAMS"),
        ({"processes": 1, "streams": 1}, "MASKMILL_PLAN__MEMORY_PER_STREAM_MIB"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(seen, settings, words):
    with pytest.raises(PlacementError) as caught:
        plan(seen("xeon-w-2145", memory_bytes=1535 * MIB), PlanSettings(**settings))

    assert words in str(caught.value)


def test_numbers_set_by_hand_are_kept_while_the_others_give_way(seen):
    memory = 2 * (512 + 1024) * MIB

    by_processes = plan(seen("xeon-w-2145", memory_bytes=memory), PlanSettings(processes=2))
    by_streams = plan(seen("epyc-9334-nps1", memory_bytes=memory), PlanSettings(streams=2))

    assert shapes(by_processes) == [(4, 1, 4), (4, 1, 4)]
    assert shapes(by_streams) == [(8, 2, 4)]


def test_pictures_share_what_the_plan_leaves(seen):
    settings = PlanSettings(processes=2, memory_per_stream_mib=100, memory_per_process_mib=300)
    tight = plan(seen("xeon-w-2145", memory_bytes=2 * 1024 * MIB), settings)
    ample = plan(seen("xeon-w-2145", memory_bytes=34 * 1024 * MIB), settings)

    assert tight.picture_memory_mib == 160 + (2048 - tight.memory_needed_mib) * 3 // 4 // 2
    assert ample.picture_memory_mib == tight.picture_memory_mib + 32 * 1024 * 3 // 4 // 2
    assert f"images in flight of a process: up to {ample.picture_memory_mib} MiB" in ample.as_text()


def test_memory_in_use_by_other_programs_gives_a_warning(seen):
    here = replace(seen("xeon-w-2145"), memory_available_bytes=2000 * MIB)

    assert "may need 2560 MiB, but only 2000 MiB are free" in plan(here, PlanSettings()).warnings[0]


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        (
            "sapphire-rapids-56-snc4",
            [
                "Intel(R) Xeon(R) Platinum 8480+: CPUs 0-111 are online.",
                "The affinity mask allows all of them.",
                "No cpuset restricts them.",
                "112 usable CPUs on 56 physical cores",
                "4 groups of 14, 14, 14, 14 by NUMA node (several nodes in one package: sub-NUMA clusters)",
                "No CPU quota is set.",
                "4 processes: one per group",
                "2 streams x 7 threads on 14 cores: as near to four threads per stream",
                "Peak memory: 4 x 512 MiB for the processes + 8 x 1024 MiB for the streams = 10240 MiB",
            ],
        ),
        (
            "affinity-in-cpuset",
            [
                "CPUs 0-7 are online",
                "The affinity mask allows only CPUs 2-3.",
                "The cpuset in /sys/fs/cgroup/jobs/cpuset.cpus.effective allows only CPUs 0-5.",
                "2 usable CPUs, each on its own physical core.",
                "one NUMA node and one L3 group",
                "No CPU quota",
                "1 process: one per group",
                "2 streams x 1 thread on 2 cores: as measured",
                "Peak memory: ",
            ],
        ),
    ],
)
def test_every_choice_has_its_reason(seen, name, sentences):
    reasons = plan(seen(name), PlanSettings()).reasons

    assert len(reasons) == len(sentences)
    for reason, sentence in zip(reasons, sentences, strict=True):
        assert sentence in reason


@pytest.mark.parametrize(
    ("name", "changes", "settings", "sentence"),
    [
        ("container-v2-quota", {}, {}, "The CPU quota of 3.5 in /sys/fs/cgroup/cpu.max keeps 3 cores of 8 busy"),
        ("container-v2-quota", {"quota_cpus": 8.0}, {}, "is enough for all cores"),
        ("container-v2-quota", {"quota_cpus": 0.5, "usable": frozenset({3})}, {}, "keeps 1 core of 1 busy"),
        ("sapphire-rapids-56", {}, {}, "2 processes: one per group, and groups of more than 32 cores are divided"),
        ("xeon-w-2145", {}, {"streams": 4, "threads": 8}, "4 streams x 2 threads on 8 cores: streams and threads set"),
        ("xeon-w-2145", {"usable": frozenset({3})}, {}, "1 stream x 1 thread on 1 core: a single core"),
        ("bare-sandbox", {}, {}, "1 stream x 4 threads on 4 cores: all cores work on one image"),
        ("bare-sandbox", {}, {}, "CPUs 0-3: no cache of level 3 is described"),
    ],
)
def test_reasons_of_special_cases(seen, name, changes, settings, sentence):
    reasons = plan(seen(name, **changes), PlanSettings(**settings)).reasons

    assert any(sentence in reason for reason in reasons), reasons


def test_the_plan_as_json_has_its_documented_keys(seen):
    result = plan(seen("cascade-lake-2x20-interleaved"), PlanSettings())

    read_back = json.loads(json.dumps(result.as_dict()))

    numbers = ["memory_needed_mib", "memory_usable_mib", "picture_memory_mib"]
    assert list(read_back) == ["core_sets", *numbers, "reasons", "warnings"]
    assert read_back["core_sets"][1] == {
        "index": 1,
        "cpus": list(range(1, 40, 2)),
        "package": 1,
        "node": 1,
        "l3": 1,
        "streams": 5,
        "threads": 20,
        "threads_per_stream": 4,
    }


def test_the_plan_as_text_has_every_set_reason_and_warning(seen):
    result = plan(seen("container-v2-quota"), PlanSettings())

    text = result.as_text()

    assert text.startswith("process 0: CPUs 0-2 (package 0, NUMA node 0, L3 of CPU 0), 1 stream x 3 threads\n")
    assert all(f"- {reason}" in text for reason in result.reasons)
    assert [f"! {warning}" for warning in result.warnings] == text.splitlines()[-1:]
