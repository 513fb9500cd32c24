"""The topology of recorded machines."""

from __future__ import annotations

import os
import runpy
from collections import Counter

import pytest

from worker.contract.errors import PlacementError, SetupError
from worker.cpu import topology
from worker.cpu.kernel import parse_cpu_list


def cpus(text):
    return parse_cpu_list(text, "test")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("vm-zen3-2", [2, 2, 1, 1, 1]),
        ("xeon-w-2145", [16, 8, 1, 1, 1]),
        ("cascade-lake-2x20-interleaved", [80, 40, 2, 2, 2]),
        ("sapphire-rapids-56-snc4", [112, 56, 4, 1, 1]),
        ("sapphire-rapids-56", [112, 56, 1, 1, 1]),
        ("epyc-9334-nps1", [64, 32, 1, 4, 1]),
        ("hybrid-12700", [20, 12, 1, 1, 1]),
        ("offline-holes", [6, 4, 1, 1, 1]),
        ("bare-sandbox", [4, 4, 1, 1, 1]),
        ("vm-8-sockets", [8, 8, 1, 1, 8]),
    ],
)
def test_counts_of_cpus_cores_nodes_l3_groups_and_packages(machine, name, counts):
    seen = topology.read(machine(name)).cpus

    distinct = [len({getattr(cpu, name) for cpu in seen}) for name in ("id", "core", "node", "l3", "package")]
    assert distinct == counts


def test_core_ids_that_repeat_across_packages_are_different_cores(machine):
    seen = {cpu.id: cpu for cpu in topology.read(machine("cascade-lake-2x20-interleaved")).cpus}

    assert (seen[0].core, seen[40].core, seen[1].core, seen[41].core) == (0, 0, 1, 1)
    assert (seen[78].node, seen[79].node, seen[78].package, seen[79].package) == (0, 1, 0, 1)
    assert set(Counter(cpu.core for cpu in seen.values()).values()) == {2}


def test_sub_numa_clusters_are_nodes(machine):
    seen = {cpu.id: cpu for cpu in topology.read(machine("sapphire-rapids-56-snc4")).cpus}

    assert [seen[i].node for i in (0, 13, 14, 55, 56, 69, 70, 111)] == [0, 0, 1, 3, 0, 0, 1, 3]


def test_an_l3_group_is_named_by_its_lowest_cpu(machine):
    seen = {cpu.id: cpu for cpu in topology.read(machine("epyc-9334-nps1")).cpus}

    assert [seen[i].l3 for i in (0, 7, 8, 31, 32, 40, 63)] == [0, 0, 8, 24, 0, 8, 24]


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("xeon-w-2145", "0-15"),
        ("container-cpuset-odd", "1,3,5,7"),
        ("affinity-in-cpuset", "2-3"),
        ("offline-holes", "0,2,4-7"),
        ("container-v1-quota", "0-7"),
    ],
)
def test_usable_cpus(machine, name, usable):
    assert topology.read(machine(name)).usable == cpus(usable)


@pytest.mark.parametrize(
    ("name", "kibibytes", "file"),
    [
        ("xeon-w-2145", 65536000, "/proc/meminfo"),
        ("container-v2-quota", 8 * 1024 * 1024, "/sys/fs/cgroup/memory.max"),
        ("container-v1-quota", 4 * 1024 * 1024, "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ],
)
def test_memory_is_the_smaller_of_machine_and_control_group(machine, name, kibibytes, file):
    seen = topology.read(machine(name))

    assert (seen.memory_bytes, seen.memory_file) == (kibibytes * 1024, file)


def test_a_control_group_with_more_than_the_machine_has_limits_nothing(machine):
    root = machine("container-v2-quota")
    (root / "sys/fs/cgroup/memory.max").write_text(f"{1 << 50}\n")

    assert topology.read(root).memory_file == "/proc/meminfo"


def test_model_and_flags(machine):
    seen = topology.read(machine("sapphire-rapids-56"))

    assert seen.model_name == "Intel(R) Xeon(R) Platinum 8480+"
    assert {"avx512_bf16", "amx_tile"} <= seen.flags
    assert "hypervisor" not in seen.flags


def test_whole_machines_need_no_notes(machine):
    for name in ("xeon-w-2145", "cascade-lake-2x20-interleaved", "sapphire-rapids-56-snc4", "epyc-9334-nps1"):
        assert topology.read(machine(name)).notes == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hybrid-12700", ["16-19 are efficiency cores"]),
        ("offline-holes", ["0,2,4-7 has single CPUs"]),
        ("vm-8-sockets", ["separate L3 cache for every core"]),
        (
            "bare-sandbox",
            [
                "no affinity mask is assumed",
                "no limit assumed",
                "MemAvailable",
                "CPUs 0-3: topology/physical_package_id is missing",
                "CPUs 0-3: no /sys/devices/system/node/node*/cpulist",
                "CPUs 0-3: no sibling list and no core_id",
                "CPUs 0-3: no cache of level 3",
            ],
        ),
    ],
)
def test_assumptions_are_noted(machine, name, words):
    notes = topology.read(machine(name)).notes

    assert len(notes) == len(words)
    for word in words:
        assert any(word in note for note in notes), (word, notes)


def test_separate_l3_caches_are_kept_on_real_hardware(machine):
    root = machine("vm-8-sockets")
    info = root / "proc/cpuinfo"
    info.write_text(info.read_text().replace("hypervisor ", ""))

    assert len({cpu.l3 for cpu in topology.read(root).cpus}) == 8


def test_offline_cpus_of_a_sibling_list_do_not_name_a_core(machine):
    root = machine("offline-holes")
    for cpu in (5, 7):
        (root / f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list").write_text(f"{cpu - 4},{cpu}\n")

    seen = {cpu.id: cpu.core for cpu in topology.read(root).cpus}

    assert (seen[5], seen[7]) == (5, 7)


def test_a_missing_online_list_falls_back_to_the_possible_one_with_a_note(machine):
    root = machine("xeon-w-2145")
    (root / "sys/devices/system/cpu/online").unlink()

    seen = topology.read(root)

    assert len(seen.cpus) == 16
    assert "/sys/devices/system/cpu/possible are assumed online" in seen.notes[0]


@pytest.mark.parametrize(
    ("file", "content", "error", "words"),
    [
        ("sys/devices/system/cpu/online", "", SetupError, "/sys/devices/system/cpu/online is missing or empty"),
        ("sys/devices/system/cpu/online", "0-x", SetupError, "/sys/devices/system/cpu/online"),
        ("sys/devices/system/cpu/cpu3/topology/physical_package_id", "?", SetupError, "cpu3/topology/physical_package"),
        ("sys/devices/system/node/node0/cpulist", "0-7;", SetupError, "/sys/devices/system/node/node0/cpulist"),
        ("proc/self/status", "Cpus_allowed_list:\t7-0", SetupError, "/proc/self/status"),
        ("proc/meminfo", "nothing", SetupError, "/proc/meminfo has no MemTotal"),
        ("proc/meminfo", "MemTotal: many kB", SetupError, "/proc/meminfo: 'many kB'"),
        ("proc/self/status", "Cpus_allowed_list:\t8-9", PlacementError, "no usable CPU: 0-7 are online"),
        ("sys/fs/cgroup/cpuset.cpus.effective", "9", PlacementError, "/sys/fs/cgroup/cpuset.cpus.effective has 9"),
    ],
)
def test_an_unusable_tree_is_refused_with_the_file(machine, file, content, error, words):
    root = machine("container-v2-quota")
    (root / file).write_text(content)

    with pytest.raises(error) as caught:
        topology.read(root)

    assert words in str(caught.value)


def test_an_empty_tree_is_refused(tmp_path):
    with pytest.raises(SetupError, match="/sys/devices/system/cpu/online is missing"):
        topology.read(tmp_path)


def test_this_machine():
    seen = topology.read()

    assert seen.usable <= os.sched_getaffinity(0)
    assert seen.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_recording_of_this_machine_reads_like_the_machine(machine, topologies, tmp_path, capsys):
    runpy.run_path(str(topologies / "record.py"), run_name="__main__")
    recording = tmp_path / "here.txt"
    recording.write_text(capsys.readouterr().out)

    there, here = topology.read(machine(recording)), topology.read()

    assert (there.cpus, there.usable, there.flags) == (here.cpus, here.usable, here.flags)
    assert (there.quota_cpus, there.memory_bytes, there.notes) == (here.quota_cpus, here.memory_bytes, here.notes)
