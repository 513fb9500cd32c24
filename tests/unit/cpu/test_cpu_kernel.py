"""CPU lists and reading small files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.errors import SetupError
from worker.cpu.kernel import Tree, format_cpu_list, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("\n", set()),
        ("0", {0}),
        ("0-3\n", {0, 1, 2, 3}),
        ("0,2,4-7", {0, 2, 4, 5, 6, 7}),
        ("0,2,4-7,9-15:2", {0, 2, 4, 5, 6, 7, 9, 11, 13, 15}),
        ("0-15:2/8", {0, 1, 8, 9}),
        (" 3 , 1-2 ", {1, 2, 3}),
        ("5-5", {5}),
    ],
)
def test_a_cpu_list_is_read(text, cpus):
    assert parse_cpu_list(text, "here") == cpus


@pytest.mark.parametrize("text", ["a", "0-", "-3", "3-1", "0-7:0", "0-7:1/0", "1.5", "0 1", "0:2"])
def test_an_invalid_cpu_list_is_refused_with_its_origin(text):
    with pytest.raises(SetupError, match="/sys/some/file"):
        parse_cpu_list(text, "/sys/some/file")


@pytest.mark.parametrize(("cpus", "text"), [([], "none"), ([7], "7"), ([4, 0, 2, 5, 6], "0,2,4-6"), ([1, 0], "0-1")])
def test_cpus_are_written_as_the_kernel_does(cpus, text):
    assert format_cpu_list(cpus) == text


@given(st.sets(st.integers(0, 300), min_size=1))
def test_writing_and_reading_give_the_same_cpus(cpus):
    assert parse_cpu_list(format_cpu_list(cpus), "here") == cpus


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 9), st.integers(1, 9))
def test_groups_within_a_range_follow_their_definition(first, length, used, group):
    expected = {cpu for cpu in range(first, first + length + 1) if (cpu - first) % group < used}

    assert parse_cpu_list(f"{first}-{first + length}:{used}/{group}", "here") == expected


def test_a_missing_file_is_none_and_not_noted(tmp_path):
    tree = Tree(tmp_path)

    assert (tree.text("/a"), tree.cpus("/a"), tree.number("/a"), tree.numbered("/a", "cpu")) == (None, None, None, [])
    assert tree.notes == []


def test_a_file_that_refuses_to_be_read_counts_as_missing_with_a_note(tmp_path):
    (tmp_path / "folder").mkdir()  # reading a folder fails for root too, unlike a mode of 000
    tree = Tree(tmp_path)

    assert tree.text("/folder") is None
    assert tree.notes == ["/folder cannot be read (Is a directory) and counts as missing."]


def test_an_invalid_number_is_refused_with_its_file(tmp_path):
    (tmp_path / "level").write_text("three\n")

    with pytest.raises(SetupError, match="/level: 'three'"):
        Tree(tmp_path).number("/level")


def test_numbered_entries_are_exact_and_in_numeric_order(tmp_path: Path):
    for name in ("cpu10", "cpu2", "cpufreq", "cpu", "xcpu3"):
        (tmp_path / name).mkdir()

    assert Tree(tmp_path).numbered("/", "cpu") == [2, 10]
