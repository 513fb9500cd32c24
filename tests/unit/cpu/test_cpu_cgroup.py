"""Control groups: the tightest limit of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.errors import SetupError
from worker.cpu import cgroup
from worker.cpu.kernel import Tree

V2 = "35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw"


def tree_of(root: Path, files: dict[str, str]) -> Tree:
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Tree(root)


def v2(root: Path, files: dict[str, str], own: str = "/a/b", mount: str = V2) -> Tree:
    group = {f"/sys/fs/cgroup{name}": content for name, content in files.items()}
    return tree_of(root, {"/proc/self/cgroup": f"0::{own}\n", "/proc/self/mountinfo": mount, **group})


@pytest.mark.parametrize(
    ("name", "quota", "memory_mib"),
    [
        ("container-v2-quota", 3.5, 8192),
        ("container-v1-quota", 2.0, 4096),
        ("systemd-slice-v2", 4.0, 16384),
        ("container-cpuset-odd", None, None),
        ("xeon-w-2145", None, None),
        ("vm-zen3-2", None, None),
    ],
)
def test_recorded_limits(machine, name, quota, memory_mib):
    limits = cgroup.read(Tree(machine(name)))

    assert limits.quota_cpus == quota
    assert limits.memory_bytes == (None if memory_mib is None else memory_mib * 1024 * 1024)


def test_the_file_with_the_tightest_limit_is_named(machine):
    limits = cgroup.read(Tree(machine("systemd-slice-v2")))

    assert limits.quota_file == "/sys/fs/cgroup/batch.slice/cpu.max"
    assert limits.memory_file == "/sys/fs/cgroup/batch.slice/memory.max"


def test_the_own_group_applies_if_it_is_tighter(tmp_path):
    limits = cgroup.read(Tree(v2(tmp_path, {"/a/cpu.max": "400000 100000", "/a/b/cpu.max": "50000 100000"}).root))

    assert (limits.quota_cpus, limits.quota_file) == (0.5, "/sys/fs/cgroup/a/b/cpu.max")


def test_a_group_that_the_container_cannot_see_falls_back_to_the_mount_point(tmp_path):
    limits = cgroup.read(v2(tmp_path, {"/cpu.max": "150000 100000"}, own="/kubepods/pod1/c1"))

    assert limits.quota_cpus == 1.5


def test_a_group_outside_the_namespace_never_leads_outside_the_mount(tmp_path):
    limits = cgroup.read(
        v2(tmp_path, {"/cpu.max": "200000 100000", "/../cpu.max": "100000 100000"}, own="/../../elsewhere")
    )

    assert limits.quota_cpus == 2.0


def test_only_the_shown_part_of_a_bind_mounted_hierarchy_is_walked(tmp_path):
    mount = V2.replace("0:30 / ", "0:30 /docker/4f2a ")
    files = {"/inner/cpu.max": "100000 100000", "/cpu.max": "300000 100000"}

    assert cgroup.read(v2(tmp_path, files, own="/docker/4f2a/inner", mount=mount)).quota_cpus == 1.0


def test_a_mount_point_with_a_space_is_found(tmp_path):
    tree = tree_of(
        tmp_path,
        {
            "/proc/self/cgroup": "0::/",
            "/proc/self/mountinfo": V2.replace("/sys/fs/cgroup", r"/my\040groups"),
            "/my groups/cpu.max": "250000 100000",
        },
    )

    assert cgroup.read(tree).quota_cpus == 2.5


def test_cpusets_of_several_levels_are_intersected(tmp_path):
    limits = cgroup.read(
        v2(tmp_path, {"/cpuset.cpus.effective": "0-7", "/a/cpuset.cpus.effective": "2-5", "/a/b/cpuset.cpus": "4-6"})
    )

    assert limits.cpuset == {4, 5}


def test_an_empty_cpuset_leaves_the_decision_to_the_parent_group(tmp_path):
    limits = cgroup.read(v2(tmp_path, {"/a/b/cpuset.cpus": "\n", "/a/cpuset.cpus": "1-2"}))

    assert (limits.cpuset, limits.cpuset_file) == ({1, 2}, "/sys/fs/cgroup/a/cpuset.cpus")


def test_version_1_prefers_the_effective_cpuset(tmp_path):
    tree = tree_of(
        tmp_path,
        {
            "/proc/self/cgroup": "3:cpuset:/x",
            "/proc/self/mountinfo": "34 31 0:31 / /cg/cpuset rw - cgroup cgroup rw,cpuset",
            "/cg/cpuset/x/cpuset.effective_cpus": "1",
            "/cg/cpuset/x/cpuset.cpus": "0-3",
        },
    )

    assert cgroup.read(tree).cpuset == {1}


def test_version_1_counts_the_period(tmp_path):
    tree = tree_of(
        tmp_path,
        {
            "/proc/self/cgroup": "4:cpu,cpuacct:/x",
            "/proc/self/mountinfo": "33 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            "/cg/cpu/x/cpu.cfs_quota_us": "75000",
            "/cg/cpu/x/cpu.cfs_period_us": "50000",
        },
    )

    assert cgroup.read(tree).quota_cpus == 1.5


def test_both_versions_together_give_the_tightest(tmp_path):
    tree = tree_of(
        tmp_path,
        {
            "/proc/self/cgroup": "4:memory:/x\n0::/y",
            "/proc/self/mountinfo": f"{V2}\n33 31 0:29 / /cg/memory rw - cgroup cgroup rw,memory",
            "/cg/memory/x/memory.limit_in_bytes": "1000000",
            "/sys/fs/cgroup/y/memory.max": "2000000",
        },
    )

    assert cgroup.read(tree).memory_bytes == 1_000_000


@pytest.mark.parametrize("content", ["garbage", "100000 0", "0 100000", "100000 x"])
def test_an_invalid_quota_is_refused_with_its_file(tmp_path, content):
    with pytest.raises(SetupError, match=r"/sys/fs/cgroup/a/b/cpu\.max"):
        cgroup.read(v2(tmp_path, {"/a/b/cpu.max": content}))


def test_no_control_groups_at_all_is_noted(tmp_path):
    tree = Tree(tmp_path)

    assert cgroup.read(tree) == cgroup.Limits()
    assert "no limit assumed" in tree.notes[0]
